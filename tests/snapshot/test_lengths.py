# SPDX-License-Identifier: MIT
"""Sets of vector lengths and their bitmaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi.errors import UsageError
from kvmabi.model import vls
from kvmabi.profiles import host_names, load_host
from kvmabi.snapshot import lengths

SETS = st.frozensets(st.integers(1, 16), min_size=1)


@given(SETS)
def test_the_bitmap_is_the_models(vqs: frozenset[int]) -> None:
    """Both directions agree with what the model's registers hold."""
    bits = lengths.of_vqs(vqs)
    assert lengths.vls_of(bits) == vls.encode(vqs, max(vqs))
    assert lengths.lengths_bits(lengths.vls_of(bits)) == bits == lengths.checked(bits, "sve_bits")


def test_lengths_of_any_set() -> None:
    """All 512 bits count, also those beyond what a vCPU can have."""
    assert lengths.lengths_bits(bytes(64)) == ()
    assert lengths.lengths_bits(bytes(63) + b"\x80") == (512 * 128,)


@pytest.mark.parametrize("wrong", [0, -128, 100, 512 * 128 + 128])
def test_what_is_not_a_length(wrong: int) -> None:
    """It has no bit in the bitmap."""
    assert not lengths.are_lengths([128, wrong])
    with pytest.raises(UsageError, match="multiple of 128"):
        lengths.vls_of((128, wrong))


def test_what_no_vcpu_has() -> None:
    """The bitmap has room for more than 2048 bits, a vCPU does not."""
    assert lengths.are_lengths([4096])
    with pytest.raises(UsageError, match=r"--sve: .* up to 2048 bits, not 4096"):
        lengths.checked([128, 4096], "--sve")


@pytest.mark.parametrize("host", host_names())
def test_hosts_are_possible(host: str) -> None:
    """Every built-in host's sets, cut off anywhere, are sets that a CPU can have."""
    for kind, bits in (("sve", load_host(host).sve_vector_bits), ("sme", load_host(host).sme_vector_bits)):
        for end in range(len(bits)):
            assert lengths.impossible(kind, bits[: end + 1]) == ""


@pytest.mark.parametrize(
    ("kind", "bits", "why"),
    [
        ("sve", (256,), "128 is missing"),
        ("sve", (128, 1024), "256, 512 are missing"),
        ("sve", (384,), "128, 256 are missing"),
        ("sme", (384,), "384 is not a power of two"),
        ("sme", (128, 384, 640), "384, 640 are not powers of two"),
        ("sme", (2048,), ""),
        ("sve", (), ""),
    ],
)
def test_impossible_sets(kind: str, bits: tuple[int, ...], why: str) -> None:
    """The reason names the lengths."""
    said = lengths.impossible(kind, bits)
    assert said.startswith(why)
    assert bool(said) == bool(why)
