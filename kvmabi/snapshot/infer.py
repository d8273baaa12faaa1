# SPDX-License-Identifier: MIT
"""What a vCPU's registers show of the features of its KVM_ARM_VCPU_INIT.

A register that exists only with a feature shows that feature. The absence of a feature is shown only by a whole list
of KVM's: formats leave registers out, and TCG has registers that KVM gives to other features. A value of no bytes
stands for one that is not known, as in a list of IDs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from kvmabi import regid, uapi
from kvmabi.model import core
from kvmabi.model.mode import SVCR_SM
from kvmabi.model.plan import LENGTHS, SVCR
from kvmabi.profiles import features as feature_rules
from kvmabi.profiles import idregs, sysregs
from kvmabi.snapshot.lengths import SME_VLS, SVE_VLS

Registers = Mapping[int, bytes]
PSCI_VERSION = regid.parse("psci_version")
EL2_OP1 = 4
SYSREG_MASK = uapi.KVM_REG_ARCH_MASK | uapi.KVM_REG_ARM_COPROC_MASK
SYSREG = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM64_SYSREG
OP0_AND_OP1 = uapi.KVM_REG_ARM64_SYSREG_OP0_MASK | uapi.KVM_REG_ARM64_SYSREG_OP1_MASK
EL2 = uapi.ARM64_SYS_REG(3, EL2_OP1, 0, 0, 0) & OP0_AND_OP1
FIRST_PSCI = 2
"""PSCI_VERSION 0.2; without the feature KVM offers 0.1, and refuses the one in place of the other."""
E2H0 = next(field for field in idregs.fields(regid.parse("id_aa64mmfr4_el1")) if field.lsb == 24)
"""Not 0 on a vCPU whose EL2 has HCR_EL2.E2H fixed at 1, that is, without the feature has_el2_e2h0."""
PFR0_SVE = next(field for field in idregs.fields(regid.parse("id_aa64pfr0_el1")) if field.lsb == 32)
PFR1_SME = next(field for field in idregs.fields(regid.parse("id_aa64pfr1_el1")) if field.lsb == 24)


class Sign(NamedTuple):
    """One row of the table: a feature, what shows it, and the IDs of a list that do."""

    feature: str
    what: str
    ids: Callable[[Registers], Iterator[int]]


def _one(id: int) -> Callable[[Registers], Iterator[int]]:
    return lambda registers: iter((id,) if id in registers else ())


def _plain_vectors(registers: Registers) -> Iterator[int]:
    """Z, P and FFR of a list whose SVCR.SM is 0."""
    svcr = registers.get(SVCR)
    if svcr is None or (svcr and not svcr[0] & SVCR_SM):
        yield from (id for id in registers if id not in LENGTHS and regid.decode(id).family == "sve")


def _rows(registers: Registers) -> Iterator[int]:
    yield from (id for id in registers if id not in LENGTHS and regid.decode(id).family == "sme")


def _of_el2(registers: Registers) -> Iterator[int]:
    """System registers of EL2, except those that every vCPU has: the EL1 state of AArch32."""
    for id in registers:
        if id & SYSREG_MASK == SYSREG and id & OP0_AND_OP1 == EL2 and id not in sysregs.by_id():
            yield id


def _psci(registers: Registers) -> Iterator[int]:
    if _number(registers, PSCI_VERSION) >= FIRST_PSCI:
        yield PSCI_VERSION


def _needing(feature: str) -> Callable[[Registers], Iterator[int]]:
    return lambda registers: (id for id in registers if feature in _needs(id))


@lru_cache(1 << 13)
def _needs(id: int) -> frozenset[str]:
    """What a register needs; nothing for ID registers, which some kernels list on every vCPU (smidr_el1)."""
    register = sysregs.by_id().get(id)
    return register.needs if register is not None and not register.shared else frozenset()


SIGNS: tuple[Sign, ...] = (
    Sign("sve", "sve_vls is listed", _one(SVE_VLS)),
    Sign("sve", "Z, P or FFR are listed although SVCR.SM is 0 or absent", _plain_vectors),
    Sign("sme", "sme_vls is listed", _one(SME_VLS)),
    Sign("sme", "ZA or ZT0 are listed", _rows),
    Sign("has_el2", "system registers of EL2 are listed", _of_el2),
    Sign("psci_0_2", "psci_version is 0.2 or later", _psci),
    *(
        Sign(name, f"system registers that need {name} are listed", _needing(name))
        for name in feature_rules.table()
        if name in sysregs.needs()
    ),
)
"""What shows a feature. sysregs.toml says which system registers need one."""


def signs(registers: Registers) -> dict[str, tuple[int, ...]]:
    """The features that a vCPU's registers show, each with the IDs of the registers that show it.

    >>> from kvmabi import regid
    >>> shown = signs({regid.parse("pmcr_el0"): bytes(8), regid.parse("x0"): bytes(8)})
    >>> {feature: [regid.name_of(id) for id in ids] for feature, ids in shown.items()}
    {'pmu_v3': ['pmcr_el0']}
    """
    shown: dict[str, dict[int, None]] = {}
    for sign in SIGNS:
        ids = dict.fromkeys(sign.ids(registers))
        if ids:
            shown.setdefault(sign.feature, {}).update(ids)
    return {feature: tuple(ids) for feature, ids in shown.items()}


def features_of(registers: Registers) -> frozenset[str]:
    """The features that registers or their values show, and those that INIT takes only together with them.

    power_off and pmu_v3_strict leave nothing behind: they are never among them.

    >>> from kvmabi import regid
    >>> sorted(features_of({regid.parse("apiakeylo_el1"): bytes(8), regid.parse("sve_vls"): bytes(64)}))
    ['ptrauth_address', 'ptrauth_generic', 'sve']
    """
    shown = frozenset(signs(registers))
    shown = shown.union(*(feature_rules.table()[name].needs for name in shown))
    if _number(registers, core.PSTATE_ID) & core.MODE_MASK in core.EL1_32BIT:
        shown |= {"el1_32bit"}
    if "has_el2" in shown and registers.get(E2H0.id) and not E2H0.get(_number(registers, E2H0.id)):
        shown |= {"has_el2_e2h0"}
    return shown


def usual_features(registers: Registers) -> frozenset[str]:
    """As ``features_of``, with psci_0_2 unless psci_version is 0.1: VMMs ask for it, and few formats show it.

    >>> sorted(usual_features({})), sorted(usual_features({PSCI_VERSION: (1).to_bytes(8, "little")}))
    (['psci_0_2'], [])
    """
    shown = features_of(registers)
    return shown if 0 < _number(registers, PSCI_VERSION) < FIRST_PSCI else shown | {"psci_0_2"}


def shows_sve(registers: Registers) -> bool | None:
    """Whether ID_AA64PFR0_EL1 shows SVE, which it does only on a vCPU with the feature; None if it is absent."""
    return _shows(registers, PFR0_SVE)


def shows_sme(registers: Registers) -> bool | None:
    """The same for ID_AA64PFR1_EL1 and SME."""
    return _shows(registers, PFR1_SME)


def _shows(registers: Registers, field: idregs.Field) -> bool | None:
    return bool(field.get(_number(registers, field.id))) if registers.get(field.id) else None


def _number(registers: Registers, id: int) -> int:
    """A register's value, 0 if it is absent or not known."""
    return int.from_bytes(registers.get(id, b""), "little")
