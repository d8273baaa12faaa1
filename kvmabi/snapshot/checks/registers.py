# SPDX-License-Identifier: MIT
"""Registers by themselves: their IDs, their widths, the sizes of their values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

from kvmabi import regid, uapi
from kvmabi.model.cache import CACHES
from kvmabi.model.registermap import FIXED_BITS
from kvmabi.model.row import size_of
from kvmabi.profiles import kernel_names, sysregs
from kvmabi.snapshot import presence
from kvmabi.snapshot.checks.case import Case
from kvmabi.snapshot.checks.findings import Seen

MOST_WIDTHS = 64
"""More registers of a wrong width than this are one finding."""


def sizes(case: Case) -> Iterator[Seen]:
    """Values of another size than their IDs say, those with the same sizes together."""
    wrong: dict[tuple[int, int], list[int]] = {}
    for id, data in case.registers.items():
        if len(data) != size_of(id):
            wrong.setdefault((len(data), size_of(id)), []).append(id)
    for (given_bytes, size_bytes), ids in wrong.items():
        yield Seen("wrong-size", f"{given_bytes} bytes, where the ID says {size_bytes}", tuple(ids))


def ids(case: Case) -> Iterator[Seen]:
    """IDs that no kernel lists: with another width, with bits that no ID has, or of registers that are not known."""
    if case.tcg:
        return
    strange = [id for id in case.registers if not is_known(id)]
    bad = tuple(id for id in strange if id & FIXED_BITS != uapi.KVM_REG_ARM64)
    if bad:
        yield Seen("bad-id", f"{_numbers(bad)}: the fields of an arm64 ID are 0x60 and zeroes", bad)
    right = {id: place for id in strange if (place := width_of(id))}
    for known_id in dict.fromkeys(right.values()):
        ids = tuple(id for id in right if right[id] == known_id) if len(right) < MOST_WIDTHS else tuple(right)
        bits = " or ".join(str(8 * size) for size in sorted({size_of(id) for id in ids}))
        text = f"{bits} bits; {regid.name_of(known_id)} has {8 * size_of(known_id)} ({known_id:#018x})"
        yield Seen("register-width", text, ids)
        if len(right) >= MOST_WIDTHS:
            break
    unknown = tuple(id for id in strange if id not in right and id & FIXED_BITS == uapi.KVM_REG_ARM64)
    if unknown and case.map is None:
        yield Seen("unknown-register", f"none of {', '.join(kernel_names())} lists {_numbers(unknown)}", unknown)


@lru_cache(maxsize=1 << 14)
def _is_usual(id: int) -> bool:
    """Whether a register is obviously one that kernels list: ``known`` asks them all, which takes a second."""
    if id in sysregs.by_id():
        return True
    fields = regid.decode(id)
    if "[" not in fields.name:
        return fields.family != "sysreg" and not fields.name.startswith("0x")
    return not fields.slice and (fields.family == "sme" or (fields.family == "demux" and (fields.n or 0) < CACHES))


@cache
def known() -> frozenset[int]:
    """Every register that some built-in kernel lists."""
    return frozenset().union(*map(presence.listed_by, kernel_names()))


def is_known(id: int) -> bool:
    """Whether some built-in kernel lists a register."""
    return _is_usual(id) or id in known()


def width_of(id: int) -> int | None:
    """The ID of the known register that differs from an unknown one only in its width; None if there is none."""
    return None if is_known(id) else _by_place().get(id & ~uapi.KVM_REG_SIZE_MASK)


@cache
def _by_place() -> dict[int, int]:
    return {id & ~uapi.KVM_REG_SIZE_MASK: id for id in known()}


def _numbers(ids: tuple[int, ...], most: int = 4) -> str:
    shown = ", ".join(f"{id:#018x}" for id in ids[:most])
    return shown if len(ids) <= most else f"{shown} and {len(ids) - most} more"
