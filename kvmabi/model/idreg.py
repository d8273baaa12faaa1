# SPDX-License-Identifier: MIT
"""Writing ID registers: VM-wide, frozen by the first run, and only towards what is safe to promise a guest."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.model.registermap import Effect, Refusal, Row

if TYPE_CHECKING:
    from kvmabi.model.vcpu import Vcpu
    from kvmabi.profiles.idregs import Field

AFTER_RUN = Refusal(
    errno.EBUSY, "ID registers are fixed once a vCPU of the VM has run", "write them before the first KVM_RUN"
)
NOT_OPTED_IN = Refusal(
    errno.EINVAL,
    "the implementation's id cannot be changed without the VM's opt-in",
    "enable KVM_CAP_ARM_WRITABLE_IMP_ID_REGS on the VM first",
)
OUTSIDE_MASK = Refusal(
    errno.EINVAL, "bits outside the writable mask differ from the host's", "see KVM_ARM_GET_REG_WRITABLE_MASKS"
)


def set_feature_id(vcpu: Vcpu, row: Row, data: bytes) -> list[Effect]:
    """Set a feature ID register: the value it has, or one no field of which promises more than this VM can hold."""
    value, old = _value(data), _value(vcpu.file.memory[row.offset : row.offset + 8])
    if value == old:
        return []
    if vcpu.vm.has_run:
        raise vcpu.refused(row, AFTER_RUN)
    mask = vcpu.system.kernel.writable_masks.get(row.id, 0)
    limit = vcpu.vm.reset_value(row)
    if (value ^ limit) & ~mask:
        raise vcpu.refused(row, OUTSIDE_MASK)
    for field in vcpu.system.id_fields(row.id):
        if field.mask & mask and not field.safe(value, limit):
            raise vcpu.refused(row, _unsafe(field, value, limit))
    vcpu.store(row, data)
    vcpu.vm.id_registers_changed(vcpu)
    return []


def set_implementation_id(vcpu: Vcpu, row: Row, data: bytes) -> list[Effect]:
    """Set MIDR, REVIDR, AIDR or SMIDR: the value it has, or, after the VM's opt-in, any within the mask."""
    value = _value(data)
    if value == _value(vcpu.file.memory[row.offset : row.offset + 8]):
        return []
    if uapi.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS not in vcpu.vm.enabled:
        raise vcpu.refused(row, NOT_OPTED_IN)
    if vcpu.vm.has_run:
        raise vcpu.refused(row, AFTER_RUN)
    if value & ~vcpu.system.kernel.writable_masks.get(row.id, 0):
        raise vcpu.refused(row, OUTSIDE_MASK)
    vcpu.store(row, data)
    return []


def _value(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _unsafe(field: Field, value: int, limit: int) -> Refusal:
    where = f"bits {field.lsb + field.width - 1}:{field.lsb}" if field.width > 1 else f"bit {field.lsb}"
    return Refusal(
        errno.EINVAL, f"{where} = {field.get(value):#x} is not safe on a VM that has {field.get(limit):#x} there"
    )
