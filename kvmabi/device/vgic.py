# SPDX-License-Identifier: MIT
"""The file of a vGICv3, and what the files of all devices share."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, ClassVar

from kvmabi import uapi
from kvmabi.device import attr
from kvmabi.device.attr import Attribute, Attributes, UserValue, absent
from kvmabi.device.cpuinterface import ATTRIBUTE as CPU_INTERFACE
from kvmabi.device.file import DeviceFile, Handler
from kvmabi.device.guestmemory import MappedSlots
from kvmabi.device.memory import Memory
from kvmabi.gicnames import DIST, LEVEL, REDIST, registers_of_vgic
from kvmabi.model import affinity, vgicattrs
from kvmabi.model.guestmemory import GuestMemory
from kvmabi.model.refusal import Refusal
from kvmabi.model.vgic import NOTHING_TO_SAVE, UNSET_ADDRESS, Vgic

if TYPE_CHECKING:
    from kvmabi.device.vm import VmFile

LONG_BYTES, WORD_BYTES = uapi.ffi.sizeof("__u64"), uapi.ffi.sizeof("__u32")


class ControlFile(DeviceFile):
    """A device's file; it belongs to the address space that created the VM."""

    kind = "device"
    fd_place = uapi.ffi.offsetof("struct kvm_create_device", "fd")
    unknown_errno = errno.ENOTTY
    table: ClassVar[dict[int, tuple[str, Handler]]] = attr.IOCTLS
    attributes: Attributes

    def __init__(self, vm: VmFile) -> None:
        super().__init__(vm.log, vm)
        self.vm = vm
        self.vm_number = vm.vm_number
        self.device_number = len(vm.devices)
        vm.devices.append(self)

    def denies(self, memory: Memory) -> Refusal | None:
        """See VmFile.denies."""
        return self.vm.denies(memory)

    def registers(self) -> Iterable[tuple[int, int]]:
        """Group and number of each attribute that is state of an interrupt controller."""
        return ()

    def memory(self, value: UserValue) -> GuestMemory:
        """The guest's memory, through the caller's of an access."""
        return GuestMemory(MappedSlots(self.vm.slots, value.memory))


class VgicFile(ControlFile):
    """A vGICv3."""

    def __init__(self, vm: VmFile, vgic: Vgic) -> None:
        super().__init__(vm)
        self.vgic = vgic
        groups = vm.vm.system.kernel.vgic_groups
        self.attributes: Attributes = {key: attribute for key, attribute in VGIC.items() if key[0] in groups}

    @property
    def vcpus(self) -> Collection[int]:
        """The IDs of the VM's vCPUs."""
        return self.vm.vm.vcpus

    def registers(self) -> Iterable[tuple[int, int]]:
        """See ControlFile.registers."""
        affinities = map(affinity.affinity, self.vm.vm.vcpus.values())
        return registers_of_vgic(affinities, self.vgic.irqs) if self.vgic.initialized else ()

    def save_pending_tables(self, value: UserValue) -> None:
        """KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES. Errors: ENXIO before the vGIC's initialisation, EFAULT."""
        if not self.vgic.initialized:
            raise NOTHING_TO_SAVE.error()
        self.vm.vm.lpis.save_pending(self.memory(value))


def _address(value: int | None) -> int:
    return UNSET_ADDRESS if value is None else value


def _registers(group: int) -> Attribute:
    """A group of registers of the vGIC's frames, of 32 bits each."""
    return Attribute(
        WORD_BYTES,
        lambda file, value: vgicattrs.get_register(file.vm.vm, file.vgic, group, value.attr),
        lambda file, value: vgicattrs.set_register(file.vm.vm, file.vgic, group, value),
        lambda file, attr: vgicattrs.has_register(file.vm.vm, file.vgic, group, attr),
    )


VGIC: dict[tuple[int, int | None], Attribute] = {
    (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_V3_ADDR_TYPE_DIST): Attribute(
        LONG_BYTES, lambda file, _value: _address(file.vgic.dist), lambda file, value: file.vgic.set_dist(value.take())
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST): Attribute(
        LONG_BYTES,
        lambda file, _value: file.vgic.redist,
        lambda file, value: file.vgic.set_redist(value.take(), file.vcpus),
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION): Attribute(
        LONG_BYTES,
        lambda file, value: file.vgic.region(value.take()),
        lambda file, value: file.vgic.add_region(value.take(), file.vcpus),
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, attr.ANY): Attribute(LONG_BYTES, set=attr.no_such_attr, present=absent),
    (uapi.KVM_DEV_ARM_VGIC_GRP_NR_IRQS, attr.ANY): Attribute(
        WORD_BYTES, lambda file, _value: file.vgic.irqs, lambda file, value: file.vgic.set_irqs(value.take())
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT): Attribute(
        0, set=lambda file, _value: file.vgic.init()
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES): Attribute(
        0, set=lambda file, value: file.save_pending_tables(value)
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, attr.ANY): CPU_INTERFACE,
    (uapi.KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ, attr.ANY): Attribute(
        WORD_BYTES, lambda file, _value: file.vgic.maint_irq, lambda file, value: file.vgic.set_maint_irq(value.take())
    ),
    (DIST, attr.ANY): _registers(DIST),
    (REDIST, attr.ANY): _registers(REDIST),
    (LEVEL, attr.ANY): Attribute(
        WORD_BYTES,
        lambda file, value: vgicattrs.get_level(file.vm.vm, file.vgic, value.attr),
        lambda file, value: vgicattrs.set_level(file.vm.vm, file.vgic, value),
        lambda _file, attr: vgicattrs.has_level(attr),
    ),
}
