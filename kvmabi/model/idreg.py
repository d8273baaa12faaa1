# SPDX-License-Identifier: MIT
"""Writes of ID registers: VM-wide, fixed by the first run, and limited to what is safe to promise a guest."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.model.refusal import Refusal
from kvmabi.model.row import Outcome, Owner, Row
from kvmabi.profiles import idregs

if TYPE_CHECKING:
    from kvmabi.profiles import Kernel
    from kvmabi.profiles.idregs import Demand, Field

AFTER_RUN = Refusal(
    errno.EBUSY, "ID registers are fixed once a vCPU of the VM has run", "write them before the first KVM_RUN"
)
NOT_OPTED_IN = Refusal(
    errno.EINVAL,
    "the implementation ID registers cannot be changed without the VM's opt-in",
    "enable KVM_CAP_ARM_WRITABLE_IMP_ID_REGS on the VM first",
)
INVARIANT = Refusal(errno.EINVAL, "the host fixes this register: it can only be set to the value it has")
OUTSIDE_MASK = Refusal(
    errno.EINVAL, "bits outside the writable mask differ from the host's", "see KVM_ARM_GET_REG_WRITABLE_MASKS"
)


def set_feature_id(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set a feature ID register to a value whose fields promise no more than this VM supports."""
    kernel = vcpu.system.kernel
    switches, value = kernel.switches, taken(kernel, row.id, _value(data))
    demanded = refused_demand(kernel, vcpu.mode.features, row.id, value)
    if demanded is not None:
        return demanded
    if vcpu.vm.has_run and switches.id_registers_fixed_by_run:
        if value != vcpu.value(row):
            return AFTER_RUN
        return None
    refused = refused_change(row.id, value, vcpu.reset_value(row), kernel.writable_masks.get(row.id, 0))
    if refused is not None:
        return refused
    vcpu.store(row, value.to_bytes(8, "little"))
    if row.id in idregs.deciding():
        _remap_vm(vcpu)
    return None


def taken(kernel: Kernel, id: int, value: int) -> int:
    """The value that a set of a feature ID register takes over: an IMPLEMENTATION DEFINED PMU can count as none."""
    for field in idregs.impdef(id):
        if kernel.switches.impdef_pmu_is_none and field.get(value) == field.most:
            value &= ~field.mask
    return value


def refused_demand(kernel: Kernel, features: frozenset[str], id: int, value: int) -> Refusal | None:
    """Why a kernel refuses a value whatever the host has: a field is below what every VM with these features needs."""
    for demand in idregs.demands(id):
        if demand.applies(features, kernel.switches) and not demand.met(value):
            return _too_little(demand, value)
    return None


def refused_change(id: int, value: int, limit: int, writable_mask: int) -> Refusal | None:
    """Why a feature ID register cannot be set to ``value`` in a VM whose limit is ``limit``; None if it can."""
    changed = value ^ limit
    if changed & ~(writable_mask & idregs.field_bits(id)):
        return OUTSIDE_MASK
    for field in idregs.fields(id):
        if field.mask & changed and not field.safe(value, limit):
            return _unsafe(field, value, limit)
    return None


def _remap_vm(source: Owner) -> None:
    """Update the register map of every initialised vCPU to the VM's ID registers, read from ``source``."""
    exposed = source.system.exposed(source.memory)
    if exposed != source.mode.exposed:
        for vcpu in source.vm.vcpus.values():
            if vcpu.map is not None:
                vcpu.remap(exposed=exposed)


def set_aarch32_id(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set an AArch32 feature ID register: without AArch32 on the host it is zero and ignores writes."""
    if not vcpu.system.el0_32bit:
        return None
    return set_feature_id(vcpu, row, data)


def set_implementation_id(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set MIDR, REVIDR, AIDR or SMIDR: to its current value or, after the VM's opt-in, any within the mask."""
    value = _value(data)
    if value == vcpu.value(row):
        return None
    if uapi.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS not in vcpu.vm.enabled:
        return NOT_OPTED_IN
    if vcpu.vm.has_run:
        return AFTER_RUN
    if value & ~vcpu.system.kernel.writable_masks.get(row.id, 0):
        return OUTSIDE_MASK
    vcpu.store(row, data)
    return None


def show_gic(vcpu: Owner, *, shown: bool) -> None:
    """Set the GIC fields of the VM's ID registers to a GIC with system registers, or to none."""
    for field in idregs.gic_fields():
        if vcpu.system.always_zero(field.id):
            continue
        row = vcpu.row(field.id)
        value = vcpu.value(row) & ~field.mask | shown << field.lsb
        vcpu.store(row, value.to_bytes(8, "little"))


def set_constant(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set a constant register: fails with EINVAL unless the value is the current one."""
    if _value(data) != vcpu.value(row):
        return INVARIANT
    return None


def _value(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _unsafe(field: Field, value: int, limit: int) -> Refusal:
    return Refusal(
        errno.EINVAL, f"{field.place} = {field.get(value):#x} is not safe on a VM that has {field.get(limit):#x} there"
    )


def _too_little(demand: Demand, value: int) -> Refusal:
    field = demand.field
    zero = " or 0" if demand.or_zero else ""
    return Refusal(errno.EINVAL, f"{field.place} = {field.get(value):#x} is less than {demand.least:#x}{zero}")
