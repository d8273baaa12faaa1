# SPDX-License-Identifier: MIT
"""Copies that end at a page's edge, on a kernel that copies in blocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmabi.device import usercopy
from kvmabi.device.memory import PAGE_BYTES

EDGE = 0x10000


class Page:
    """One writable page, full of 0xee, that ends at EDGE; the page after it is writable or not."""

    address_space = "page"

    def __init__(self, after: bool) -> None:
        self.start, self.end = EDGE - PAGE_BYTES, EDGE + after * PAGE_BYTES
        self.bytes = bytearray(b"\xee" * (self.end - self.start))

    def read(self, addr: int, size: int) -> bytes:
        """See Memory.read."""
        return bytes(self.bytes[addr - self.start :][:size])

    def write(self, addr: int, data: bytes) -> int:
        """See Memory.write."""
        if not self.start <= addr < self.end:
            return 0
        done = min(len(data), self.end - addr)
        self.bytes[addr - self.start : addr - self.start + done] = data[:done]
        return done


SIZES = st.sampled_from([1, 4, 8, 16, 32, 64, 256])


@given(SIZES, st.integers(1, 256), st.integers(0, 256))
def test_a_get_that_faults_writes_whole_stores_or_one_byte(size: int, valid: int, mapped: int) -> None:
    """What is written is a prefix that ends with an 8-byte store, or one byte; never beyond the edge."""
    valid, mapped, page = min(valid, size), min(mapped, size), Page(after=False)
    data = bytes(n % 255 + 1 for n in range(valid)) + bytes(size - valid)
    done = usercopy.to_user(page, EDGE - mapped, data, valid)
    assert page.read(EDGE - mapped, mapped) == data[:done] + b"\xee" * (mapped - done)
    assert done == size if mapped == size else done <= mapped
    assert mapped - done < 8 or done == 1
    assert (done > 0) == (mapped > 0)


@given(SIZES, st.integers(0, 256))
def test_a_get_across_two_pages_writes_everything(size: int, before: int) -> None:
    """An edge with a page after it stops nothing."""
    page, data = Page(after=True), bytes(n & 0xFF for n in range(1, size + 1))
    addr = EDGE - min(before, size)
    assert usercopy.to_user(page, addr, data, size) == size
    assert page.read(addr, size) == data


@given(SIZES, st.integers(0, 256))
def test_a_set_stores_no_more_than_it_could_load(size: int, readable: int) -> None:
    """What a set stores is at most what could be read, and something if one byte could."""
    readable = min(readable, size)
    stored = usercopy.from_user(EDGE - readable, size, readable)
    assert stored <= readable
    assert (stored > 0) == (readable > 0)
    assert stored == size or readable < size
