# SPDX-License-Identifier: MIT
"""Registers by what a VMM treats alike: vector lengths, SVCR, Z, ZA, core registers, ID registers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from kvmabi import regid
from kvmabi.profiles import sysregs

SVE_VLS, SME_VLS, SVCR, FPSR, FPCR, FPMR = map(regid.parse, ("sve_vls", "sme_vls", "svcr", "fpsr", "fpcr", "fpmr"))
PC, PSTATE, SP, MPIDR, PSCI = map(regid.parse, ("pc", "pstate", "sp", "mpidr_el1", "psci_version"))
CNTVCT, CNTPCT = map(regid.parse, ("cntvct_el0", "cntpct_el0"))
X = tuple(regid.parse(f"x{n}") for n in range(31))
VLS = (SVE_VLS, SME_VLS)
SIZES = {"v": 16, "z": 256, "p": 32}

VECTOR_FAMILIES = ("z", "p", "ffr", "v", "za", "zt0")
"""The families of vector registers and ZA."""
STREAMING_FAMILIES = ("z", "p", "ffr", "v", "fpsr", "fpmr")
"""What a change of SVCR.SM resets."""
_ALONE = {SVE_VLS: "vls", SME_VLS: "vls", SVCR: "svcr", FPSR: "fpsr", FPCR: "fpcr", FPMR: "fpmr", CNTVCT: "count"}


@cache
def family(id: int) -> str:
    """The family of a register's ID; system registers are "id", "count" or "system"."""
    if id in _ALONE:
        return _ALONE[id]
    register = regid.decode(id)
    if register.family == "sysreg":
        if register.op0 == 3 and not register.op1 and not register.crn and (register.crm or 0) > 0:
            return "id"
        return "count" if id in sysregs.free_running_ids() else "system"
    if register.family == "core":
        return "v" if register.size_bytes == SIZES["v"] else "core"
    if register.family == "sve":
        return next(
            (bank for bank in ("z", "p") if register.size_bytes == SIZES[bank] and register.name != "ffr"), "ffr"
        )
    if register.family == "sme":
        return "zt0" if register.name == "zt0" else "za"
    return register.family


def of(ids: Iterable[int], *families: str) -> list[int]:
    """Those of some IDs that belong to one of some families, in their order."""
    return [id for id in ids if family(id) in families]


def present(ids: Iterable[int]) -> list[str]:
    """The families of some IDs, in the order in which they come first."""
    return list(dict.fromkeys(map(family, ids)))


def banks(ids: Iterable[int]) -> Iterator[list[int]]:
    """IDs grouped by family."""
    groups: dict[str, list[int]] = {}
    for id in ids:
        groups.setdefault(family(id), []).append(id)
    yield from groups.values()
