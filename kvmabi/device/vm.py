# SPDX-License-Identifier: MIT
"""A VM's file: making vCPUs, what they prefer, and the memory slots."""

from __future__ import annotations

import errno
import struct
from collections.abc import Hashable
from typing import Any, ClassVar, NamedTuple

from kvmabi import uapi
from kvmabi.device.attr import Attributes
from kvmabi.device.file import Call, DeviceFile, Handler, no_descriptor, unknown
from kvmabi.device.memory import PAGE_BYTES, Memory
from kvmabi.device.vcpu import VcpuFile
from kvmabi.device.vgic import ItsFile, VgicFile
from kvmabi.errors import KvmError
from kvmabi.events import EventLog
from kvmabi.model.vm import Vm

MASKS_BYTES = 8 * uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE
CREATE_DEVICE = struct.Struct("=III")
DEVICES = frozenset({uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_TYPE_ARM_VGIC_ITS})
ENABLE_CAP = struct.Struct("=II4Q")
MASK_RANGE = struct.Struct("=QI13I")
SLOT = struct.Struct("=IIQQQ")
READONLY = uapi.KVM_MEM_READONLY
SLOT_FLAGS = uapi.KVM_MEM_LOG_DIRTY_PAGES | READONLY


class Slot(NamedTuple):
    """A memory slot: guest-physical place, size in bytes, place in the VMM, and whether the guest may write."""

    guest: int
    size: int
    user: int
    readonly: bool


class VmFile(DeviceFile):
    """The file that KVM_CREATE_VM opens. It belongs to the address space that made it."""

    kind = "vm"

    def __init__(self, log: EventLog, vm: Vm, address_space: Hashable, vcpu_attributes: Attributes) -> None:
        super().__init__(log)
        self.vm = vm
        self.address_space = address_space
        self.slots: dict[int, Slot] = {}
        self.vcpus: list[VcpuFile] = []
        self.vcpu_attributes = vcpu_attributes

    def check(self, memory: Memory) -> None:
        """EIO for every address space but the VM's own, and for everybody once the VM is dead."""
        if memory.address_space != self.address_space:
            raise KvmError(errno.EIO, "a VM can be used from the address space that created it only")
        if self.vm.dead:
            raise KvmError(errno.EIO, "the VM is dead: a KVM_RUN found its vGIC unfit")

    def where(self) -> tuple[Any, int | None, int | None]:
        """See DeviceFile.where."""
        return "", self.vm.number, None

    def release(self) -> None:
        """Give back what the VM and its vCPUs hold; their files are of no more use."""
        for vcpu in self.vcpus:
            vcpu.release()
        self.vm.close()

    def _create_vcpu(self, call: Call) -> DeviceFile:
        index = call.arg & 0xFFFFFFFF
        try:
            vcpu = VcpuFile(self, self.vm.create_vcpu(index))
        except OSError as error:
            if isinstance(error, KvmError):
                raise
            self.forget(index)
            raise no_descriptor(error) from None
        self.vcpus.append(vcpu)
        return vcpu

    def forget(self, index: int) -> None:
        """Undo the making of a vCPU that nobody got a descriptor of."""
        self.vcpus = [file for file in self.vcpus if file.vcpu.index != index]
        left = self.vm.vcpus.pop(index, None)
        if left is not None:
            left.close()

    def _create_device(self, call: Call) -> int | DeviceFile:
        kind, fd, flags = CREATE_DEVICE.unpack(call.read(call.arg, CREATE_DEVICE.size))
        if kind not in DEVICES:
            raise KvmError(errno.ENODEV, f"there is no device of type {kind}, or kvmabi does not model it")
        made: int | DeviceFile = 0
        if not flags & uapi.KVM_CREATE_DEVICE_TEST:
            its = kind == uapi.KVM_DEV_TYPE_ARM_VGIC_ITS
            made = ItsFile(self) if its else VgicFile(self, self.vm.create_vgic())
        call.write(call.arg, CREATE_DEVICE.pack(kind, fd, flags))  # what is made stays made if this is EFAULT
        return made

    def _create_irqchip(self, _call: Call) -> int:
        raise KvmError(errno.ENODEV, "the host cannot emulate a GICv2", remedy="KVM_CREATE_DEVICE makes a vGICv3")

    def _check_extension(self, call: Call) -> int:
        if call.arg == uapi.KVM_CAP_MSI_DEVID and self.vm.has_its:
            return 1
        return self.vm.system.check_extension(call.arg, on_vm=True)

    def _preferred_target(self, call: Call) -> int:
        init = uapi.ffi.new("struct kvm_vcpu_init *")
        init.target = self.vm.system.kernel.target
        call.write(call.arg, bytes(uapi.ffi.buffer(init)))
        return 0

    def _set_device_addr(self, call: Call) -> int:
        """KVM_ARM_SET_DEVICE_ADDR, which has the number of KVM_GET_ONE_REG: there is no vGIC of the old kind."""
        call.read(call.arg, uapi.ffi.sizeof("struct kvm_arm_device_addr"))
        raise KvmError(errno.ENODEV, "the VM has no such device; registers are read and written on a vCPU's file")

    def _set_memory_region(self, call: Call) -> int:
        slot, flags, guest, size, user = SLOT.unpack(call.read(call.arg, SLOT.size))
        if flags & ~SLOT_FLAGS or (guest | size | user) % PAGE_BYTES or slot >> 16 or guest + size >= 1 << 64:
            raise KvmError(errno.EINVAL, "a memory slot has page-aligned places, a known number and known flags")
        if not size:
            if self.slots.pop(slot, None) is None:
                raise KvmError(errno.EINVAL, f"there is no memory slot {slot} to remove")
            return 0
        old = self.slots.get(slot)
        if old is not None and (old.size, old.user, old.readonly) != (size, user, bool(flags & READONLY)):
            raise KvmError(errno.EINVAL, "a memory slot can be moved and logged, not resized or backed otherwise")
        for other, known in self.slots.items():
            if other != slot and guest < known.guest + known.size and known.guest < guest + size:
                raise KvmError(errno.EEXIST, f"the memory slot overlaps slot {other}")
        self.slots[slot] = Slot(guest, size, user, bool(flags & READONLY))
        return 0

    def _enable_cap(self, call: Call) -> int:
        capability, flags, *args = ENABLE_CAP.unpack(call.read(call.arg, ENABLE_CAP.size))
        known = capability == uapi.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS
        if not known or flags or any(args) or not self.vm.system.check_extension(capability, on_vm=True):
            raise KvmError(errno.EINVAL, f"capability {capability} cannot be enabled so")
        if self.vm.vcpus:
            raise KvmError(errno.EINVAL, "this is to be enabled before the first vCPU is made")
        self.vm.enabled.add(capability)
        return 0

    def _writable_masks(self, call: Call) -> int:
        if not self.vm.system.kernel.switches.writable_masks_ioctl:
            return unknown(self, call)
        addr, reach, *reserved = MASK_RANGE.unpack(call.read(call.arg, MASK_RANGE.size))
        if reach or any(reserved):
            raise KvmError(errno.EINVAL, "the only range is 0, and what is reserved is 0")
        table = bytearray(MASKS_BYTES)
        for id, mask in self.vm.system.writable_masks().items():
            place = _mask_index(id)
            table[place * 8 : place * 8 + 8] = mask.to_bytes(8, "little")
        call.write(addr, bytes(table))
        return 0

    table: ClassVar[dict[int, tuple[str, Handler]]] = {
        uapi.KVM_CREATE_VCPU: ("KVM_CREATE_VCPU", _create_vcpu),
        uapi.KVM_CREATE_DEVICE: ("KVM_CREATE_DEVICE", _create_device),
        uapi.KVM_CREATE_IRQCHIP: ("KVM_CREATE_IRQCHIP", _create_irqchip),
        uapi.KVM_CHECK_EXTENSION: ("KVM_CHECK_EXTENSION", _check_extension),
        uapi.KVM_ARM_PREFERRED_TARGET: ("KVM_ARM_PREFERRED_TARGET", _preferred_target),
        uapi.KVM_GET_ONE_REG: ("KVM_ARM_SET_DEVICE_ADDR", _set_device_addr),
        uapi.KVM_SET_USER_MEMORY_REGION: ("KVM_SET_USER_MEMORY_REGION", _set_memory_region),
        uapi.KVM_ENABLE_CAP: ("KVM_ENABLE_CAP", _enable_cap),
        uapi.KVM_ARM_GET_REG_WRITABLE_MASKS: ("KVM_ARM_GET_REG_WRITABLE_MASKS", _writable_masks),
    }


def _mask_index(id: int) -> int:
    """A feature ID register's place in the table of masks: op1, CRm and op2 of its encoding."""
    op1, crm, op2 = id >> 11 & 7, id >> 3 & 15, id & 7
    return uapi.KVM_ARM_FEATURE_ID_RANGE_INDEX(3, op1, 0, crm, op2)
