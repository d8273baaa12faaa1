# SPDX-License-Identifier: MIT
"""The files of KVM_CREATE_DEVICE: the vGICv3 and its ITS."""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

from kvmabi import uapi
from kvmabi.device import attr
from kvmabi.device.attr import Attribute, Attributes, absent
from kvmabi.device.file import DeviceFile, Handler
from kvmabi.device.memory import Memory
from kvmabi.errors import KvmError
from kvmabi.gicnames import DIST, LEVEL, REDIST
from kvmabi.model import vgicattrs
from kvmabi.model.refusal import Refusal
from kvmabi.model.vgic import UNSET_ADDRESS, Its, Vgic

if TYPE_CHECKING:
    from kvmabi.device.vm import VmFile

LONG_BYTES, WORD_BYTES = uapi.ffi.sizeof("__u64"), uapi.ffi.sizeof("__u32")


class ControlFile(DeviceFile):
    """A device's file; it belongs to the address space that created the VM."""

    kind = "device"
    fd_place = uapi.ffi.offsetof("struct kvm_create_device", "fd")
    unknown_errno = errno.ENOTTY
    table: ClassVar[dict[int, tuple[str, Handler]]] = attr.IOCTLS

    def __init__(self, vm: VmFile) -> None:
        super().__init__(vm.log, vm)
        self.vm = vm
        self.vm_number = vm.vm_number

    def denies(self, memory: Memory) -> Refusal | None:
        """See VmFile.denies."""
        return self.vm.denies(memory)


class VgicFile(ControlFile):
    """A vGICv3."""

    unmodelled_groups = frozenset({uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS})

    def __init__(self, vm: VmFile, vgic: Vgic) -> None:
        super().__init__(vm)
        self.vgic = vgic
        groups = vm.vm.system.kernel.vgic_groups
        self.attributes: Attributes = {key: attribute for key, attribute in VGIC.items() if key[0] in groups}

    @property
    def vcpus(self) -> Collection[int]:
        """The IDs of the VM's vCPUs."""
        return self.vm.vm.vcpus


class ItsFile(ControlFile):
    """An ITS."""

    unmodelled_groups = frozenset({uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS})

    def __init__(self, vm: VmFile) -> None:
        super().__init__(vm)
        self.its = Its(vm.vm.ipa_bits)
        vm.vm.add_its(self.its)
        self.attributes = ITS_ANY_CONTROL if vm.vm.system.kernel.switches.its_takes_any_control else ITS


def _address(value: int | None) -> int:
    return UNSET_ADDRESS if value is None else value


def _no_address(*_: object) -> int:
    raise KvmError(errno.ENODEV, "an ITS has one address, KVM_VGIC_ITS_ADDR_TYPE")


def _nothing_to_do(*_: object) -> None:
    """The controls of an ITS do nothing: its tables are empty."""


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
        0, set=lambda file, _value: file.vgic.save_pending_tables()
    ),
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
ITS: dict[tuple[int, int | None], Attribute] = {
    (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_ITS_ADDR_TYPE): Attribute(
        LONG_BYTES, lambda file, _value: _address(file.its.base), lambda file, value: file.its.set_base(value.take())
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, attr.ANY): Attribute(LONG_BYTES, _no_address, _no_address, present=absent),
    **{
        (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, control): Attribute(0, set=_nothing_to_do)
        for control in (
            uapi.KVM_DEV_ARM_VGIC_CTRL_INIT,
            uapi.KVM_DEV_ARM_ITS_SAVE_TABLES,
            uapi.KVM_DEV_ARM_ITS_RESTORE_TABLES,
            uapi.KVM_DEV_ARM_ITS_CTRL_RESET,
        )
    },
}
ITS_ANY_CONTROL = ITS | {(uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, attr.ANY): Attribute(0, set=_nothing_to_do, present=absent)}
