# SPDX-License-Identifier: MIT
"""Values of cases: every form stands for the bytes that its documentation says."""

from __future__ import annotations

import pytest

from kvmabi.conformance import values
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.grammar import pattern


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("=0x1234", 8, bytes((0x34, 0x12, 0, 0, 0, 0, 0, 0))),
        ("=3", 4, b"\x03\0\0\0"),
        ("pattern:7", 16, pattern(7, 16)),
        ("pattern:7/4", 16, pattern(7, 4) + bytes(12)),
        ("pattern:260/1", 2, pattern(4, 1) + b"\0"),
        ("00*3.ff", 8, b"\0\0\0\xff"),
        ("vls:1,2,4", 64, b"\x0b" + bytes(63)),
        ("vls:none", 64, bytes(64)),
        ("vls:512", 64, bytes(63) + b"\x80"),
    ],
)
def test_each_form(model: ModelBackend, text: str, size: int, expected: bytes) -> None:
    """Numbers, patterns, sets and hex are what the table of values says."""
    assert values.data(text, size, model.describe()) == expected


def test_host_sets(model: ModelBackend) -> None:
    """vls:sve is the host's set, cut off at a member with <=, and sve_vl its longest in bytes."""
    host_features = model.describe()
    assert values.vls("sve", host_features) == sum(1 << (vq - 1) for vq in host_features.sve_vqs).to_bytes(64, "little")
    assert values.vls("sve<=1", host_features)[0] == 1
    assert values.number("sve_vl", host_features) == max(host_features.sve_vqs) * 16
    assert values.number("sme_vl/8", host_features) == max(host_features.sme_vqs) * 2
    assert values.number("3*16", host_features) == 48


def test_pattern_is_the_documented_one() -> None:
    """Byte i of a pattern is (seed + 7 i + (i >> 4)) mod 256, as in recorded traces."""
    assert pattern(200)[:3] == bytes((200, 207, 214))
    assert pattern(0)[16] == 7 * 16 + 1
    assert len(pattern(0)) == 2048


@pytest.mark.parametrize("text", ["=x", "pattern:", "vls:two", "zz", "sve_vl"])
def test_nonsense_is_a_value_error(model: ModelBackend, text: str) -> None:
    """Text that is not a value is a ValueError, which the runner reports with the case's name."""
    with pytest.raises(ValueError, match=r".*"):
        values.data(text, 8, model.describe())
