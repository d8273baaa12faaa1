# SPDX-License-Identifier: MIT
"""Dirty pages against a set of page numbers, which is slower and simpler."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmabi.model.dirtypages import PART_BYTES, DirtyPages, bitmap_bytes


def dirty(pages: DirtyPages) -> set[int]:
    """The pages whose bits are set."""
    bits = int.from_bytes(b"".join(part for _, part in pages.parts()), "little")
    return {n for n in range(bits.bit_length()) if bits >> n & 1}


@given(
    st.integers(1, 300),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=40)), max_size=6),
    st.lists(st.integers(0, 299), max_size=6),
)
def test_clearing(count: int, all_dirty: bool, clears: list[tuple[int, bytes]], marks: list[int]) -> None:
    """Whatever is written and cleared, no other page is, and no page beyond the slot's is ever dirty."""
    pages = DirtyPages(count, all_dirty=all_dirty)
    expected = set(range(count)) if all_dirty else set()
    assert dirty(pages) == expected
    for word, bits in clears:
        if marks and (page := marks.pop()) < count:
            pages.mark(page)
            expected.add(page)
        pages.clear(64 * word, bits)
        number = int.from_bytes(bits, "little")
        expected -= {64 * word + n for n in range(number.bit_length()) if number >> n & 1}
        assert dirty(pages) == expected
    pages.clear_all()
    assert dirty(pages) == set()


def test_across_parts() -> None:
    """A clear that reaches from one part of a large bitmap into the next."""
    pages = DirtyPages(8 * PART_BYTES + 128, all_dirty=True)
    pages.clear(8 * PART_BYTES - 64, b"\xff" * 16)
    parts = dict(pages.parts())
    assert parts[0] == b"\xff" * (PART_BYTES - 8) + bytes(8)
    assert parts[PART_BYTES] == bytes(8) + b"\xff" * 8


def test_a_bitmap_has_whole_words() -> None:
    """Of 64 bits."""
    assert [bitmap_bytes(n) for n in (1, 64, 65, 1 << 31)] == [8, 8, 16, 1 << 28]
