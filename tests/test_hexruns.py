# SPDX-License-Identifier: MIT
"""Bytes as the recordings write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi import hexruns


@given(st.binary(max_size=512) | st.binary(max_size=4).map(lambda data: data * 64))
def test_compress_and_expand_are_inverse(data: bytes) -> None:
    """What is compressed expands to the same bytes."""
    assert hexruns.expand(hexruns.compress(data)) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [("", b""), ("00*8.", bytes(8)), ("0102ff*6.03", b"\x01\x02" + b"\xff" * 6 + b"\x03"), ("aabb", b"\xaa\xbb")],
)
def test_the_documented_forms_expand(text: str, data: bytes) -> None:
    """The forms that the recordings' description shows mean what it says."""
    assert hexruns.expand(text) == data


@pytest.mark.parametrize("text", ["0", "zz", "00*", "00*9999999.", "*4.", "00*4", "00" * 4097])
def test_other_text_is_a_value_error(text: str) -> None:
    """Text that is not hex with runs, or that expands to too many bytes, is refused."""
    with pytest.raises(ValueError, match=r"hex|bytes"):
        hexruns.expand(text)
