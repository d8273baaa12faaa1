# SPDX-License-Identifier: MIT
"""The firmware pseudo-registers: PSCI's version, the workarounds' states and the bitmaps of services."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import partial

from kvmabi import uapi
from kvmabi.model import state
from kvmabi.model.facts import Facts
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.registermap import Family, RegisterMap
from kvmabi.model.row import Buffer, Outcome, Owner, Row, Rule, checked, refuse

BAD_SIZE = Refusal(errno.ENOENT, "firmware registers are 64 bits wide")
UNKNOWN = Refusal(errno.ENOENT, "this kernel does not have this firmware register")
BAD_PSCI = Refusal(
    errno.EINVAL,
    "PSCI_VERSION must be 0.2, or from 1.0 to the kernel's latest, with the feature PSCI_0_2, and 0.1 without it",
)
BAD_LEVEL = Refusal(errno.EINVAL, "the host mitigates less than this value promises")
BITMAP_BITS = Refusal(errno.EINVAL, "the value has bits of services that this kernel does not offer")
BITMAP_AFTER_RUN = Refusal(
    errno.EBUSY, "the services are fixed once a vCPU of the VM has run", "write them before the first KVM_RUN"
)

LEVEL_MASK = 0xF
ENABLED = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED
NOT_AVAIL = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_AVAIL
AVAIL = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_AVAIL
NOT_REQUIRED = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED
WORKAROUND_2_ID = uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2


def _set_psci(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    version, kernel = int.from_bytes(data, "little"), vcpu.system.kernel
    allowed = kernel.psci_versions if "psci_0_2" in vcpu.mode.features else {kernel.psci_without}
    if version not in allowed:
        return BAD_PSCI
    vcpu.store(row, data)
    return None


def _set_workaround(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Accept what the host mitigates or less; nothing is stored."""
    level = int.from_bytes(data, "little")
    if level > LEVEL_MASK or level > vcpu.value(row):
        return BAD_LEVEL
    return None


def _set_workaround_2(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """The same for the second workaround; a set only distinguishes NOT_AVAIL from AVAIL and NOT_REQUIRED."""
    value = int.from_bytes(data, "little")
    level = value & LEVEL_MASK
    if value & ~(LEVEL_MASK | ENABLED) or level > NOT_REQUIRED or (value & ENABLED and level != AVAIL):
        return BAD_LEVEL
    meant = NOT_REQUIRED if level in (AVAIL, NOT_REQUIRED) else NOT_AVAIL
    if meant > _workaround_2(vcpu, row):
        return BAD_LEVEL
    return None


def _workaround_2(vcpu: Owner, row: Row) -> int:
    """The second workaround's level; on a host that mitigates with SSBS it depends on whether the VM has SSBS."""
    if vcpu.system.once("mitigates_with_ssbs", partial(mitigates_with_ssbs, vcpu.system)):
        return NOT_AVAIL if "ssbs" in vcpu.mode.exposed else NOT_REQUIRED
    return vcpu.value(row)


def _get_workaround_2(vcpu: Owner, row: Row, _buffer: Buffer) -> bytes:
    return _workaround_2(vcpu, row).to_bytes(8, "little")


def mitigates_with_ssbs(facts: Facts) -> bool:
    """Whether the host mitigates Spectre variant 4, with SSBS where it has SSBS."""
    level = facts.host.registers.get(WORKAROUND_2_ID, 0)
    return level == (NOT_AVAIL if facts.host_shows("ssbs") else NOT_REQUIRED)


def _set_bitmap(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    value = int.from_bytes(data, "little")
    bits = vcpu.system.kernel.firmware_bitmap_bits
    if value & ~bits[(row.offset - state.FW_BMAP) // 8]:
        return BITMAP_BITS
    if vcpu.vm.has_run and value != vcpu.value(row):
        return BITMAP_AFTER_RUN
    vcpu.store(row, data)
    return None


_RULES: tuple[Rule, ...] = (
    _set_psci,
    _set_workaround,
    _set_workaround_2,
    _set_workaround,
)


def _firmware(facts: Facts, _mode: Mode) -> Iterator[Row]:
    for n in range(min(facts.kernel.firmware_registers, len(_RULES))):
        id = uapi.KVM_REG_ARM_FW_REG(n)
        level = _get_workaround_2 if id == WORKAROUND_2_ID else None
        yield Row(id, 8, state.FW + n * 8, 8, shared=n == 0, getter=level, setter=checked(_RULES[n]))


def _bitmaps(facts: Facts, _mode: Mode) -> Iterator[Row]:
    for n in range(len(facts.kernel.firmware_bitmaps)):
        id = uapi.KVM_REG_ARM_FW_FEAT_BMAP_REG(n)
        yield Row(id, 8, state.FW_BMAP + n * 8, 8, shared=True, setter=checked(_set_bitmap))


def _refuse(_map: RegisterMap, id: int) -> Row:
    if id & uapi.KVM_REG_SIZE_MASK != uapi.KVM_REG_SIZE_U64:
        return refuse(id, BAD_SIZE)
    return refuse(id, UNKNOWN, after_copy=True)


def _constant(_mode: Mode) -> None:
    """The key of every mode: all modes have the same firmware registers."""


REGISTERS = Family("firmware", (uapi.KVM_REG_ARM_FW,), _constant, _firmware, _refuse)
BITMAPS = Family("firmware_bitmap", (uapi.KVM_REG_ARM_FW_FEAT_BMAP,), _constant, _bitmaps, _refuse)
