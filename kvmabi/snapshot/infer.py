# SPDX-License-Identifier: MIT
"""What a list of registers shows by itself: features of KVM_ARM_VCPU_INIT, and sets of vector lengths.

A register that exists only with a feature shows that feature. The absence of a feature is shown only by a whole list
of KVM's: formats leave registers out, and TCG has registers that KVM gives to other features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from kvmabi import regid, uapi
from kvmabi.errors import UsageError
from kvmabi.model.mode import SVCR_SM
from kvmabi.model.plan import LENGTHS, SVCR
from kvmabi.profiles import features as feature_rules
from kvmabi.profiles import sysregs

Registers = Mapping[int, bytes]
SVE_VLS, SME_VLS = LENGTHS
PSCI_VERSION = regid.parse("psci_version")
VQ_BITS = 128
VLS_BITS = 512
"""The bits of SVE_VLS and SME_VLS, one a length."""
EL2_OP1 = 4
SYSREG_MASK = uapi.KVM_REG_ARCH_MASK | uapi.KVM_REG_ARM_COPROC_MASK
SYSREG = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM64_SYSREG
OP0_AND_OP1 = uapi.KVM_REG_ARM64_SYSREG_OP0_MASK | uapi.KVM_REG_ARM64_SYSREG_OP1_MASK
EL2 = uapi.ARM64_SYS_REG(3, EL2_OP1, 0, 0, 0) & OP0_AND_OP1
FIRST_PSCI = 2  # version 0.2; without the feature KVM offers 0.1, and refuses the one in place of the other


class Sign(NamedTuple):
    """One row of the table: a feature, what shows it, and the IDs of a list that do."""

    feature: str
    what: str
    ids: Callable[[Registers], Iterator[int]]


def _one(id: int) -> Callable[[Registers], Iterator[int]]:
    return lambda registers: iter((id,) if id in registers else ())


def _plain_vectors(registers: Registers) -> Iterator[int]:
    """Z, P and FFR of a list whose SVCR.SM is 0."""
    if not int.from_bytes(registers.get(SVCR, b""), "little") & SVCR_SM:
        yield from (id for id in registers if id not in LENGTHS and regid.decode(id).family == "sve")


def _rows(registers: Registers) -> Iterator[int]:
    yield from (id for id in registers if id not in LENGTHS and regid.decode(id).family == "sme")


def _of_el2(registers: Registers) -> Iterator[int]:
    """System registers of EL2, except those that every vCPU has: the EL1 state of AArch32."""
    for id in registers:
        if id & SYSREG_MASK == SYSREG and id & OP0_AND_OP1 == EL2 and id not in sysregs.by_id():
            yield id


def _psci(registers: Registers) -> Iterator[int]:
    if int.from_bytes(registers.get(PSCI_VERSION, b""), "little") >= FIRST_PSCI:
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
    """The features that the registers show, and those that INIT takes only together with them.

    power_off, pmu_v3_strict, has_el2_e2h0 and el1_32bit leave no register behind: they are never among them.

    >>> from kvmabi import regid
    >>> sorted(features_of({regid.parse("apiakeylo_el1"): bytes(8), regid.parse("sve_vls"): bytes(64)}))
    ['ptrauth_address', 'ptrauth_generic', 'sve']
    """
    shown = frozenset(signs(registers))
    return shown.union(*(feature_rules.table()[name].needs for name in shown))


def lengths_bits(vls: bytes) -> tuple[int, ...]:
    """The vector lengths in bits that a value of SVE_VLS or SME_VLS holds, in rising order.

    >>> lengths_bits(bytes([0b1011]) + bytes(63))
    (128, 256, 512)
    """
    held = int.from_bytes(vls, "little")
    return tuple(VQ_BITS * vq for vq in range(1, held.bit_length() + 1) if held >> vq - 1 & 1)


def vls_of(lengths_bits: tuple[int, ...]) -> bytes:
    """The value of SVE_VLS or SME_VLS for a set of vector lengths in bits. Raises UsageError for what is no length.

    >>> vls_of((128, 256, 512))[0], len(vls_of((128,)))
    (11, 64)
    """
    if any(bits % VQ_BITS or not 0 < bits <= VLS_BITS * VQ_BITS for bits in lengths_bits):
        raise UsageError(f"a vector length is a multiple of {VQ_BITS} bits, not {lengths_bits}")
    return sum(1 << bits // VQ_BITS - 1 for bits in set(lengths_bits)).to_bytes(VLS_BITS // 8, "little")
