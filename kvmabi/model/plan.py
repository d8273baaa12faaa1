# SPDX-License-Identifier: MIT
"""The one order that restores a vCPU without loss: what restores, checks, explains or prints an order reads it here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from kvmabi import regid
from kvmabi.profiles import sysregs

SVCR = regid.parse("svcr")
LENGTHS = (regid.parse("sve_vls"), regid.parse("sme_vls"))


class Stage(IntEnum):
    """A stage of a restore: a register may be written only when the stages before its own are done."""

    INIT = 0
    LENGTHS = 1
    ID_REGISTERS = 2
    FINALIZE = 3
    SVCR = 4
    REST = 5

    @property
    def title(self) -> str:
        """What the stage does, as documentation and plans show it."""
        return _TITLES[self]

    @property
    def why(self) -> str:
        """Why it comes before the next one."""
        return _WHY[self]


_TITLES = {
    Stage.INIT: "KVM_ARM_VCPU_INIT with the features of the source",
    Stage.LENGTHS: "sve_vls and sme_vls",
    Stage.ID_REGISTERS: "ID registers, if they differ from the host's",
    Stage.FINALIZE: "KVM_ARM_VCPU_FINALIZE",
    Stage.SVCR: "svcr",
    Stage.REST: "all other registers, as KVM_GET_REG_LIST lists them in that mode",
}
_WHY = {
    Stage.INIT: "KVM_ARM_VCPU_INIT resets every register, except the vector lengths of a finalised vCPU",
    Stage.LENGTHS: "the vector lengths are fixed by KVM_ARM_VCPU_FINALIZE",
    Stage.ID_REGISTERS: "ID registers decide which other registers exist",
    Stage.FINALIZE: "Z, P, FFR, ZA and ZT0 exist only after it",
    Stage.SVCR: "a write that changes SM resets Z, P, FFR, FPSR and FPMR; one that sets ZA zeroes ZA and ZT0",
    Stage.REST: "none has an effect on another, but PMCNTENCLR_EL0 and its like clear bits of ...SET: they come first",
}


@lru_cache(maxsize=1 << 14)
def stage_of(id: int) -> Stage:
    """The stage in which a register is written.

    >>> from kvmabi import regid
    >>> [stage_of(regid.parse(name)).name for name in ("sve_vls", "id_aa64pfr0_el1", "svcr", "z0", "pc")]
    ['LENGTHS', 'ID_REGISTERS', 'SVCR', 'REST', 'REST']
    """
    if id in LENGTHS:
        return Stage.LENGTHS
    if id == SVCR:
        return Stage.SVCR
    register = sysregs.by_id().get(id)
    return Stage.ID_REGISTERS if register is not None and register.shared else Stage.REST


def in_order(ids: Iterable[int]) -> list[int]:
    """Register IDs in the order in which they are restored; within a stage they keep their own.

    Only views that clear bits come before the rest: Linux 6.12 takes a value of PMCNTENCLR_EL0 as a guest's write,
    which clears what PMCNTENSET_EL0 has set.

    >>> from kvmabi import regid
    >>> [regid.name_of(id) for id in in_order(map(regid.parse, ["x0", "z0", "svcr", "sme_vls"]))]
    ['sme_vls', 'svcr', 'x0', 'z0']
    """
    return sorted(ids, key=_place)


def _place(id: int) -> tuple[Stage, bool]:
    return stage_of(id), id not in sysregs.views()


@dataclass(frozen=True)
class Step:
    """One ioctl of a plan: INIT, FINALIZE, or (``id`` is not None) KVM_SET_ONE_REG."""

    stage: Stage
    id: int | None = None

    def __str__(self) -> str:
        if self.id is None:
            return {Stage.INIT: "KVM_ARM_VCPU_INIT", Stage.FINALIZE: "KVM_ARM_VCPU_FINALIZE"}[self.stage]
        return f"KVM_SET_ONE_REG {regid.name_of(self.id)}"


@dataclass(frozen=True)
class Plan:
    """The order that restores one vCPU: ``ids`` as they are written, with INIT and (``vector``) FINALIZE among them.

    ``ids`` come from a register map (``RegisterMap.listed``) or from what a save read: the order of the plan is that
    of the stages, and within the last one the given order.

    >>> from kvmabi import regid
    >>> plan = Plan.of(map(regid.parse, ["pc", "za.h[0]", "svcr", "sme_vls"]))
    >>> print(*plan.steps(), sep=", ")  # doctest: +NORMALIZE_WHITESPACE
    KVM_ARM_VCPU_INIT, KVM_SET_ONE_REG sme_vls, KVM_ARM_VCPU_FINALIZE, KVM_SET_ONE_REG svcr, KVM_SET_ONE_REG pc,
    KVM_SET_ONE_REG za.h[0]
    """

    ids: tuple[int, ...]
    vector: bool

    @classmethod
    def of(cls, ids: Iterable[int], *, vector: bool | None = None, first_vcpu: bool = True) -> Plan:
        """The plan for the registers of a list.

        ``vector``: whether the vCPU has SVE or SME (None: if it has registers of either). VM-wide registers are
        written by the first vCPU of a VM only; MPIDR_EL1 is each vCPU's own.
        """
        listed = list(dict.fromkeys(ids))
        if vector is None:
            vector = any(id == SVCR or regid.decode(id).family in ("sve", "sme") for id in listed)
        return cls(tuple(id for id in in_order(listed) if first_vcpu or not is_shared(id)), vector)

    def steps(self) -> Iterator[Step]:
        """Every ioctl of the plan in its order."""
        yield Step(Stage.INIT)
        finalize = self.vector
        for id in self.ids:
            stage = stage_of(id)
            if finalize and stage > Stage.FINALIZE:
                finalize = False
                yield Step(Stage.FINALIZE)
            yield Step(stage, id)
        if finalize:
            yield Step(Stage.FINALIZE)


def is_shared(id: int) -> bool:
    """Whether all vCPUs of a VM share the register: ID registers and the bitmaps of firmware features."""
    return stage_of(id) is Stage.ID_REGISTERS or regid.decode(id).family == "firmware_bitmap"
