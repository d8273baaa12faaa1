# SPDX-License-Identifier: MIT
"""Groups of a vGICv3's attributes that are registers: which vCPU an attribute names, when it is there, what it does.

Source: Documentation/virt/kvm/devices/arm-vgic-v3.rst, and the answers of Linux 6.1 to 7.3 in tests/golden/vgic.
"""

from __future__ import annotations

import errno
from typing import Final, Protocol

from kvmabi import uapi
from kvmabi.gicnames import AFFINITY_SHIFT, DIST, LEVEL, OFFSET_MASK
from kvmabi.model import affinity, gicframes
from kvmabi.model.gicframes import IDENTIFICATION, Access
from kvmabi.model.gicstate import IRQS_OF_A_WORD, SGIS
from kvmabi.model.refusal import Refusal
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vgic import Vgic
from kvmabi.model.vm import Vm

LINE_MASK: Final = int(uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INTID_MASK)
INFO_SHIFT: Final = int(uapi.KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT)
INFO: Final = int(uapi.VGIC_LEVEL_INFO_LINE_LEVEL)

NO_VCPUS = Refusal(errno.EINVAL, "the VM has no vCPU", "KVM_CREATE_VCPU comes before the vGIC's registers")
NO_SUCH_VCPU = Refusal(
    errno.EINVAL,
    "no vCPU has the affinity in the upper half of the attribute",
    "use the vCPU's MPIDR_EL1, which it has from KVM_ARM_VCPU_INIT on",
)
NOT_READY = Refusal(errno.EBUSY, "the vGIC is not initialised", "set KVM_DEV_ARM_VGIC_CTRL_INIT before its registers")
NO_INFO = Refusal(errno.EINVAL, "the level of lines (VGIC_LEVEL_INFO_LINE_LEVEL) is the only information")
NOT_A_WORD = Refusal(errno.EINVAL, "levels are read and written by 32 interrupts: the first is a multiple of 32")


class Value(Protocol):
    """The caller's value of the attribute with the number ``attr``."""

    attr: int

    def take(self) -> int:
        """Read it. Raises KvmError, EFAULT."""


def vcpu_of(vm: Vm, group: int, attr: int) -> Vcpu:
    """The vCPU that an attribute names by its affinity; the distributor's name the first. Errors: EINVAL."""
    if group == DIST:
        vcpu = next(iter(vm.vcpus.values()), None)
        refusal = NO_VCPUS
    else:
        vcpu = affinity.find(vm, attr >> AFFINITY_SHIFT)
        refusal = NO_SUCH_VCPU
    if vcpu is None:
        raise refusal.error()
    return vcpu


def has_register(vm: Vm, vgic: Vgic, group: int, attr: int) -> bool:
    """KVM_HAS_DEVICE_ATTR of a register. Errors: EINVAL for a vCPU that does not exist."""
    vcpu_of(vm, group, attr)
    return gicframes.find(vgic, group, attr & OFFSET_MASK) is not None


def get_register(vm: Vm, vgic: Vgic, group: int, attr: int) -> int:
    """KVM_GET_DEVICE_ATTR of a register. Errors: EINVAL, EBUSY."""
    access = _access(vm, vgic, group, attr, vcpu_of(vm, group, attr))
    return gicframes.read(access) if access else 0


def set_register(vm: Vm, vgic: Vgic, group: int, value: Value) -> None:
    """KVM_SET_DEVICE_ATTR of a register. Errors: EINVAL, EFAULT, EBUSY."""
    vcpu = vcpu_of(vm, group, value.attr)
    number = value.take()
    access = _access(vm, vgic, group, value.attr, vcpu)
    if access:
        gicframes.write(access, number)


def _access(vm: Vm, vgic: Vgic, group: int, attr: int, vcpu: Vcpu) -> Access | None:
    """What an attribute accesses, None where there is nothing. Errors: EBUSY."""
    place = gicframes.find(vgic, group, attr & OFFSET_MASK)
    early = vgic.ids_before_init and place is not None and place.range.name in IDENTIFICATION
    if not vgic.initialized and not early:
        raise NOT_READY.error()
    return None if place is None else Access(vgic, place, vcpu.index, attr >> AFFINITY_SHIFT)


# --- the level of lines


def has_level(attr: int) -> bool:
    """KVM_HAS_DEVICE_ATTR of KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, which looks at the kind of information only."""
    return (attr & OFFSET_MASK) >> INFO_SHIFT == INFO


def get_level(vm: Vm, vgic: Vgic, attr: int) -> int:
    """The lines of 32 interrupts that are high; those of edge-triggered ones are 0. Errors: EINVAL, EBUSY."""
    vcpu = vcpu_of(vm, LEVEL, attr)
    irq = _first_irq(vgic, attr)
    if irq >= vgic.irqs:
        return 0
    irqs = vgic.state.irqs(irq, vcpu.index)
    return irqs.line & ~irqs.edge


def set_level(vm: Vm, vgic: Vgic, value: Value) -> None:
    """Set the lines of 32 interrupts, also of edge-triggered ones, but not of SGIs. Errors: EINVAL, EFAULT, EBUSY."""
    vcpu = vcpu_of(vm, LEVEL, value.attr)
    lines = value.take()
    irq = _first_irq(vgic, value.attr)
    if irq < vgic.irqs:
        vgic.state.irqs(irq, vcpu.index).line = lines & ~(0 if irq >= IRQS_OF_A_WORD else SGIS)


def _first_irq(vgic: Vgic, attr: int) -> int:
    """The first interrupt that a level attribute names. Errors: EBUSY, EINVAL."""
    if not vgic.initialized:
        raise NOT_READY.error()
    if not has_level(attr):
        raise NO_INFO.error()
    irq = attr & LINE_MASK
    if irq % IRQS_OF_A_WORD:
        raise NOT_A_WORD.error()
    return irq
