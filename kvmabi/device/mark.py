# SPDX-License-Identifier: MIT
"""How a VMM declares a save or a restore: the argument of a KVM_CHECK_EXTENSION that no kernel knows.

include/kvmabi/mark.h makes the same numbers in C and explains their layout.
"""

from __future__ import annotations

from typing import NamedTuple

MAGIC = 0xA64
"""Bits 31 to 20."""
OPERATIONS = {1: "saved", 2: "restored"}
"""Bits 19 to 16: what is declared."""
LABEL_BYTES = 8
"""The size of a label in an event. C programs have labels of 4 bytes, Python the ones above."""

MAGIC_SHIFT, OPERATION_SHIFT, LABEL_SHIFT = 20, 16, 32
MAGIC_MASK, OPERATION_MASK, VCPU_MASK = 0xFFF, 0xF, 0xFFFF


class Mark(NamedTuple):
    """A declaration: ``what`` is "saved" or "restored", ``vcpu`` a vCPU's index, ``label`` names the save."""

    what: str
    vcpu: int
    label: int


def mark_of(extension: int) -> Mark | None:
    """The declaration that an argument of KVM_CHECK_EXTENSION is, None for every other argument.

    >>> mark_of(7 << 32 | 0xA64 << 20 | 2 << 16 | 3)
    Mark(what='restored', vcpu=3, label=7)
    """
    if extension >> MAGIC_SHIFT & MAGIC_MASK != MAGIC:
        return None
    what = OPERATIONS.get(extension >> OPERATION_SHIFT & OPERATION_MASK)
    return None if what is None else Mark(what, extension & VCPU_MASK, extension >> LABEL_SHIFT)
