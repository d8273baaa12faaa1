# SPDX-License-Identifier: MIT
"""Bytes as hex with runs, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi.hexruns import MAX_BYTES, compress, expand


@given(st.one_of(st.binary(max_size=300), st.builds(bytes.__mul__, st.binary(max_size=3), st.integers(0, 1000))))
def test_there_and_back(data: bytes) -> None:
    """What was compressed expands to itself, and is no longer than plain hex."""
    assert expand(compress(data)) == data
    assert len(compress(data)) <= 2 * len(data)


@pytest.mark.parametrize(
    ("text", "data"),
    [("", b""), ("00*8.", bytes(8)), ("aabb*3.01", b"\xaa\xbb\xbb\xbb\x01"), ("AAbb", b"\xaa\xbb"), ("7f*1.", b"\x7f")],
)
def test_expand(text: str, data: bytes) -> None:
    """A run repeats the byte before it."""
    assert expand(text) == data


@pytest.mark.parametrize("text", ["a", "zz", "00*", "00*8", "*8.", "00*-1.", "00*8.*2.", "0x00", "00 00", "00*\u0663."])
def test_text_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not hex"):
        expand(text)


@pytest.mark.parametrize("text", [f"00*{MAX_BYTES + 1}.", "00*999999999." * 50])
def test_no_text_takes_more_than_a_register_can(text: str) -> None:
    """A run of a billion bytes is refused, not made first."""
    with pytest.raises(ValueError, match="more than"):
        expand(text)
