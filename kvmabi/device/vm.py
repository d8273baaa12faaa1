# SPDX-License-Identifier: MIT
"""A VM's file: vCPUs, devices, capabilities and memory slots."""

from __future__ import annotations

import errno
from collections.abc import Hashable
from typing import ClassVar, NamedTuple

from kvmabi import uapi
from kvmabi.device import interrupts
from kvmabi.device.attr import Attributes
from kvmabi.device.eventfds import EventFds
from kvmabi.device.file import Answer, Call, DeviceFile, Handler, Outcome, no_descriptor, unknown
from kvmabi.device.mark import LABEL_BYTES, Mark, mark_of
from kvmabi.device.memory import PAGE_BYTES, Memory
from kvmabi.device.structs import layout
from kvmabi.device.vcpu import VcpuFile
from kvmabi.device.vgic import ItsFile, VgicFile
from kvmabi.errors import KvmError
from kvmabi.events import Event, EventLog, Kind
from kvmabi.model.eventfds import IoEventFds
from kvmabi.model.refusal import Refusal
from kvmabi.model.vm import Vm

CREATE_DEVICE = layout("struct kvm_create_device")
ENABLE_CAP = layout("struct kvm_enable_cap")
MASK_RANGE = layout("struct reg_mask_range")
SLOT = layout("struct kvm_userspace_memory_region")
DEVICE_ADDR = layout("struct kvm_arm_device_addr")
MASKS_BYTES = uapi.ffi.sizeof("__u64") * uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE
DEVICES = frozenset({uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_TYPE_ARM_VGIC_ITS})
READONLY = uapi.KVM_MEM_READONLY
SLOT_FLAGS = uapi.KVM_MEM_LOG_DIRTY_PAGES | READONLY
CHECK_EXTENSION = "KVM_CHECK_EXTENSION"

FOREIGN_MEMORY = Refusal(errno.EIO, "a VM can be used only from the address space that created it")
DEAD = Refusal(errno.EIO, "the VM is dead: KVM_RUN could not map its vGIC")


class Slot(NamedTuple):
    """A memory slot: guest-physical address, size in bytes, address in the VMM, and whether the guest can only read."""

    guest: int
    size: int
    user: int
    readonly: bool


class VmFile(DeviceFile):
    """The file that KVM_CREATE_VM opens. It belongs to the address space that created it."""

    kind = "vm"

    def __init__(
        self, log: EventLog, vm: Vm, address_space: Hashable, vcpu_attributes: Attributes, eventfds: EventFds
    ) -> None:
        super().__init__(log)
        self.eventfds = eventfds
        self.ioeventfds = IoEventFds()
        self.vm = vm
        self.vm_number = vm.number
        self.address_space = address_space
        self.slots: dict[int, Slot] = {}
        self.vcpus: list[VcpuFile] = []
        self.vcpu_attributes = vcpu_attributes

    def denies(self, memory: Memory) -> Refusal | None:
        """EIO for every address space except the VM's own, and for all callers once the VM is dead."""
        if memory.address_space is not self.address_space and memory.address_space != self.address_space:
            return FOREIGN_MEMORY
        return DEAD if self.vm.dead else None

    def release(self) -> None:
        """Release what the VM holds, including the vCPUs' register files."""
        self.eventfds.irqfds.close(self.vm.number)
        self.vm.close()

    def done(self, name: str, call: Call, before: object, outcome: Outcome) -> Answer:
        """See DeviceFile.done. A declared save or restore follows its ioctl."""
        answer = super().done(name, call, before, outcome)
        if name == CHECK_EXTENSION and answer == 0 and (mark := mark_of(call.arg)) is not None:
            self.declare(mark)
        return answer

    def declare(self, mark: Mark) -> None:
        """Record that a vCPU's state is a save, or that what was written to it restores one."""
        vcpu = next((file for file in self.vcpus if file.vcpu_number == mark.vcpu), None)
        file = self if vcpu is None else vcpu
        why = None
        if vcpu is None or vcpu.vcpu.map is None:
            lacks = "does not exist" if vcpu is None else "is not initialised: KVM_ARM_VCPU_INIT comes first"
            why = Refusal(0, f"vCPU {mark.vcpu} {lacks}")
        label = mark.label.to_bytes(LABEL_BYTES, "little")
        place = self.vm_number, mark.vcpu
        mode, svcr, log = file.mode, file.svcr, self.log
        log.append(Event(log.count, Kind.MARK, mark.what, *place, mode, svcr, why, data=label, source=file))

    def _create_vcpu(self, call: Call) -> DeviceFile:
        index = call.arg & 0xFFFFFFFF
        try:
            vcpu = VcpuFile(self, self.vm.create_vcpu(index))
        except KvmError:
            raise
        except OSError as error:
            raise no_descriptor(error) from None
        self.vcpus.append(vcpu)
        return vcpu

    def forget(self, index: int) -> None:
        """Undo KVM_CREATE_VCPU when no file descriptor could be returned."""
        self.vcpus = [file for file in self.vcpus if file.vcpu.index != index]
        left = self.vm.vcpus.pop(index, None)
        if left is not None:
            left.close()

    def _create_device(self, call: Call) -> int | DeviceFile:
        kind, fd, flags = CREATE_DEVICE.unpack(call.read(call.arg, CREATE_DEVICE.size))
        if kind not in DEVICES:
            raise KvmError(errno.ENODEV, f"this kernel has no device of type {kind}, or kvmabi does not model it")
        result: int | DeviceFile = 0
        if not flags & uapi.KVM_CREATE_DEVICE_TEST:
            its = kind == uapi.KVM_DEV_TYPE_ARM_VGIC_ITS
            result = ItsFile(self) if its else VgicFile(self, self.vm.create_vgic())
        call.write(call.arg, CREATE_DEVICE.pack(kind, fd, flags))  # EFAULT here does not undo the device
        return result

    def _create_irqchip(self, _call: Call) -> int:
        raise KvmError(errno.ENODEV, "the host cannot emulate a GICv2", hint="KVM_CREATE_DEVICE creates a vGICv3")

    def _check_extension(self, call: Call) -> int:
        if call.arg == uapi.KVM_CAP_MSI_DEVID and self.vm.its:
            return 1
        return self.vm.system.check_extension(call.arg, on_vm=True)

    def _preferred_target(self, call: Call) -> int:
        init = uapi.ffi.new("struct kvm_vcpu_init *", {"target": self.vm.system.kernel.target})
        call.write(call.arg, bytes(uapi.ffi.buffer(init)))
        return 0

    def _set_device_addr(self, call: Call) -> int:
        """KVM_ARM_SET_DEVICE_ADDR, which has the same number as KVM_GET_ONE_REG: the VM has no vGICv2."""
        call.read(call.arg, DEVICE_ADDR.size)
        raise KvmError(errno.ENODEV, "the VM has no such device; registers belong to a vCPU's file")

    def _set_memory_region(self, call: Call) -> int:
        slot, flags, guest, size, user = SLOT.unpack(call.read(call.arg, SLOT.size))
        if flags & ~SLOT_FLAGS or (guest | size | user) % PAGE_BYTES or slot >> 16 or guest + size >= 1 << 64:
            raise KvmError(errno.EINVAL, "a memory slot needs page-aligned addresses, a valid number and known flags")
        if not size:
            if self.slots.pop(slot, None) is None:
                raise KvmError(errno.EINVAL, f"memory slot {slot} does not exist, so it cannot be removed")
            return 0
        old = self.slots.get(slot)
        if old is not None and (old.size, old.user, old.readonly) != (size, user, bool(flags & READONLY)):
            raise KvmError(errno.EINVAL, "a memory slot can be moved and logged, but not resized or given other memory")
        for number, other in self.slots.items():
            if number != slot and guest < other.guest + other.size and other.guest < guest + size:
                raise KvmError(errno.EEXIST, f"the memory slot overlaps slot {number}")
        self.slots[slot] = Slot(guest, size, user, bool(flags & READONLY))
        return 0

    def _enable_cap(self, call: Call) -> int:
        capability, flags, *args, _padding = ENABLE_CAP.unpack(call.read(call.arg, ENABLE_CAP.size))
        modelled = capability == uapi.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS
        if not modelled or flags or any(args) or not self.vm.system.check_extension(capability, on_vm=True):
            raise KvmError(errno.EINVAL, f"capability {capability} cannot be enabled with these arguments")
        if self.vm.vcpus:
            raise KvmError(errno.EINVAL, "this capability can be enabled only before the first vCPU is created")
        self.vm.enabled.add(capability)
        return 0

    def _writable_masks(self, call: Call) -> Outcome:
        if not self.vm.system.kernel.switches.writable_masks_ioctl:
            return unknown(self, call)
        addr, reach, *reserved = MASK_RANGE.unpack(call.read(call.arg, MASK_RANGE.size))
        if reach or any(reserved):
            raise KvmError(errno.EINVAL, "range must be 0 and reserved fields zero")
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
        uapi.KVM_CHECK_EXTENSION: (CHECK_EXTENSION, _check_extension),
        uapi.KVM_ARM_PREFERRED_TARGET: ("KVM_ARM_PREFERRED_TARGET", _preferred_target),
        uapi.KVM_GET_ONE_REG: ("KVM_ARM_SET_DEVICE_ADDR", _set_device_addr),
        uapi.KVM_SET_USER_MEMORY_REGION: ("KVM_SET_USER_MEMORY_REGION", _set_memory_region),
        uapi.KVM_ENABLE_CAP: ("KVM_ENABLE_CAP", _enable_cap),
        uapi.KVM_ARM_GET_REG_WRITABLE_MASKS: ("KVM_ARM_GET_REG_WRITABLE_MASKS", _writable_masks),
        **interrupts.IOCTLS,
    }


def _mask_index(id: int) -> int:
    """Returns a feature ID register's index in the table of masks, from op1, CRm and op2 of its encoding."""
    op1, crm, op2 = id >> 11 & 7, id >> 3 & 15, id & 7
    return uapi.KVM_ARM_FEATURE_ID_RANGE_INDEX(3, op1, 0, crm, op2)
