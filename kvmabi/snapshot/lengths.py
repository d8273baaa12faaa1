# SPDX-License-Identifier: MIT
"""Sets of vector lengths: in bits as snapshots and users have them, and as the bitmaps SVE_VLS and SME_VLS."""

from __future__ import annotations

from collections.abc import Iterable

from kvmabi.errors import UsageError
from kvmabi.model.plan import LENGTHS
from kvmabi.profiles.host import MAX_VECTOR_BITS

Lengths = tuple[int, ...]
"""A set of vector lengths in bits, rising; empty without the extension."""
SVE_VLS, SME_VLS = LENGTHS
VQ_BITS = 128
"""A quadword: every length is a multiple of it."""
VLS_BITS = 512
"""The bits of SVE_VLS and SME_VLS, one a length; a vCPU's lengths take the first 16."""


def lengths_bits(vls: bytes) -> Lengths:
    """The vector lengths in bits that a value of SVE_VLS or SME_VLS holds, in rising order.

    >>> lengths_bits(bytes([0b1011]) + bytes(63))
    (128, 256, 512)
    """
    held = int.from_bytes(vls, "little")
    return of_vqs(vq for vq in range(1, held.bit_length() + 1) if held >> vq - 1 & 1)


def vls_of(lengths_bits: Iterable[int]) -> bytes:
    """The value of SVE_VLS or SME_VLS for vector lengths in bits. Raises UsageError for what is not a length.

    >>> vls_of((128, 256, 512))[0], len(vls_of((128,)))
    (11, 64)
    """
    lengths = frozenset(lengths_bits)
    if not are_lengths(lengths):
        raise UsageError(f"a vector length is a multiple of {VQ_BITS} bits, not {', '.join(map(str, lengths))}")
    return sum(1 << bits // VQ_BITS - 1 for bits in lengths).to_bytes(VLS_BITS // 8, "little")


def of_vqs(vqs: Iterable[int]) -> Lengths:
    """The lengths in bits of a set of lengths in quadwords.

    >>> of_vqs({4, 1})
    (128, 512)
    """
    return tuple(VQ_BITS * vq for vq in sorted(vqs))


def checked(lengths_bits: Iterable[int], what: str) -> Lengths:
    """A set of lengths in bits, rising. Raises UsageError, which begins with ``what``, for one that no vCPU can have.

    >>> checked([256, 128], "--sve")
    (128, 256)
    """
    lengths = tuple(sorted(set(lengths_bits)))
    wrong = [bits for bits in lengths if not _is_length(bits, MAX_VECTOR_BITS)]
    if wrong:
        shown = ", ".join(f"{bits!r:.20}" for bits in wrong[:4])
        raise UsageError(f"{what}: vector lengths are multiples of {VQ_BITS} up to {MAX_VECTOR_BITS} bits, not {shown}")
    return lengths


def impossible(kind: str, lengths_bits: Lengths) -> str:
    """Why no CPU has a set of lengths of SVE or SME (``kind``), "" if one can.

    SVE has every power of two up to its longest length, SME has nothing but powers of two. Source: Arm ARM.

    >>> impossible("sve", (128, 256, 384)), impossible("sme", (512, 2048))
    ('', '')
    >>> impossible("sve", (256, 512))
    '128 is missing: SVE has every power of two up to its longest'
    >>> impossible("sme", (128, 384))
    '384 is not a power of two'
    """
    if kind == "sme":
        odd = [bits for bits in lengths_bits if bits & bits - 1]
        return (
            f"{', '.join(map(str, odd))} {'is not a power' if len(odd) == 1 else 'are not powers'} of two"
            if odd
            else ""
        )
    longest = max(lengths_bits, default=0)
    needed = [VQ_BITS << step for step in range(longest.bit_length()) if VQ_BITS << step <= longest]
    missing = [str(bits) for bits in needed if bits not in lengths_bits]
    verb = "is" if len(missing) == 1 else "are"
    return f"{', '.join(missing)} {verb} missing: SVE has every power of two up to its longest" if missing else ""


def are_lengths(values: Iterable[object]) -> bool:
    """Whether some values, in bits, are lengths that SVE_VLS and SME_VLS can hold.

    >>> are_lengths([128, 384]), are_lengths([]), are_lengths([100])
    (True, True, False)
    """
    return all(_is_length(bits, VLS_BITS * VQ_BITS) for bits in values)


def _is_length(bits: object, most_bits: int) -> bool:
    return isinstance(bits, int) and not bits % VQ_BITS and 0 < bits <= most_bits
