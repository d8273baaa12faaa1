# SPDX-License-Identifier: MIT
"""Register values as verdicts compare them: names and groups of registers, equality, and how two values are related."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from kvmabi import regid
from kvmabi.events import PSEUDO_REGISTERS
from kvmabi.profiles import sysregs

Values = Mapping[int, bytes]
RUNNING = sysregs.free_running_ids()
STATUS_BITS = sysregs.status_bits()
SHARED = frozenset(reg.id for reg in sysregs.table() if reg.shared)
"""Registers that all vCPUs of a VM share, and that the first run of any of them can change."""
VLS = frozenset({regid.parse("sve_vls"), regid.parse("sme_vls")})
SVCR = regid.parse("svcr")
CNTVCT = regid.parse("cntvct_el0")
_NUMBER = re.compile(r"\d+")


@cache
def name_of(id: int) -> str:
    """The name of a register or pseudo-register."""
    return PSEUDO_REGISTERS.get(id) or regid.name_of(id)


@cache
def group_of(id: int) -> str:
    """The group that a register belongs to: its name without numbers, so that 32 vectors count as one ("z#")."""
    return _NUMBER.sub("#", name_of(id))


def same(id: int, value: bytes, other: bytes | None) -> bool:
    """Whether two values of a register are equal, zero beyond the shorter one; free-running bits do not count.

    None compares unequal.
    """
    if value == other or id in RUNNING:
        return True
    if other is None:
        return False
    if len(value) != len(other) and value.rstrip(b"\0") == other.rstrip(b"\0"):
        return True
    return bool(id in STATUS_BITS and not (_number(value) ^ _number(other)) & ~STATUS_BITS[id])


def unchanged(state: Values, before: Values) -> bool:
    """Whether two states of a vCPU are equal."""
    return state.keys() == before.keys() and all(same(id, value, before[id]) for id, value in state.items())


def first_difference(value: bytes, other: bytes) -> int | None:
    """The index of the first byte in which two values differ, zero beyond the shorter one; None if they are equal."""
    size_bytes = max(len(value), len(other))
    pairs = zip(value.ljust(size_bytes, b"\0"), other.ljust(size_bytes, b"\0"), strict=True)
    return next((place for place, (one, two) in enumerate(pairs) if one != two), None)


def is_cut(saved: bytes, written: bytes) -> bool:
    """Whether ``written`` is the beginning of ``saved``, short of bytes that are not zero, or has zeroes there."""
    if saved[:1] != written[:1]:
        return False
    kept = written.rstrip(b"\0")
    return 0 < len(kept) < len(saved.rstrip(b"\0")) and saved.startswith(kept)


def is_reversed(saved: bytes, written: bytes) -> bool:
    """Whether ``written`` has the bytes of ``saved`` in another order of bytes: of the whole, or of each 8 or 4."""
    if not any(saved[len(written) :]):
        saved = saved[: len(written)]
    if written[:1] not in (saved[-1:], saved[7:8], saved[3:4]):
        return False
    return any(
        written[:1] == saved[unit - 1 : unit]
        and written == b"".join(saved[at : at + unit][::-1] for at in range(0, len(saved), unit))
        for unit in {len(saved), 8, 4}
    )


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")
