# SPDX-License-Identifier: MIT
"""Columns of bitcode: what a packer writes is read back, to its last byte, whatever the range of the values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmabi.snapshot.formats.bitcode import Columns
from snapshot import encoders

MOST = st.sampled_from([0, 1, 2, 3, 5, 6, 15, 16, 255])
WORD_MOST = st.sampled_from([0, 1, 5, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1])


@st.composite
def octets(draw: st.DrawFn) -> bytes:
    """Bytes of a small range, from 0 or from a minimum on."""
    most = draw(MOST)
    least = draw(st.integers(0, 255 - most))
    return bytes(draw(st.lists(st.integers(least, least + most), max_size=30)))


@st.composite
def words(draw: st.DrawFn) -> list[int]:
    """Numbers of a range that fits a width or just does not, from a minimum on."""
    most = draw(WORD_MOST)
    least = draw(st.integers(0, (1 << 64) - 1 - most))
    return draw(st.lists(st.integers(least, least + most), max_size=20))


@given(octets())
def test_bytes(values: bytes) -> None:
    columns = Columns(b"xy" + encoders.packed_octets(values) + b"\xff", 2)
    assert columns.octets(len(values)) == values
    assert columns.at == len(columns.data) - 1


@given(words())
def test_words(values: list[int]) -> None:
    columns = Columns(encoders.packed_words(values) + b"\xff", 0)
    assert columns.words(len(values)) == values
    assert columns.at == len(columns.data) - 1


@given(st.lists(st.integers(0, 254) | st.integers(255, 70_000), max_size=20))
def test_lengths(values: list[int]) -> None:
    data = encoders.packed_lengths(values)
    columns = Columns(data, 0)
    assert columns.lengths(len(values)) == values
    skipped = Columns(data, 0)
    skipped.skip_lengths(len(values))
    assert (columns.at, skipped.at) == (len(data), len(data))
