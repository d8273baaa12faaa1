# SPDX-License-Identifier: MIT
"""A VM's file: vCPUs, devices, capabilities and memory slots."""

from __future__ import annotations

import errno
from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from kvmabi import uapi
from kvmabi.device import interrupts, plainfiles, slots, vmattrs
from kvmabi.device.attr import Attributes, peek
from kvmabi.device.eventfds import EventFds
from kvmabi.device.file import (
    Answer,
    Call,
    DeviceFile,
    Handler,
    Outcome,
    PlainFile,
    no_descriptor,
    refused,
    unknown,
)
from kvmabi.device.its import ItsFile
from kvmabi.device.mark import LABEL_BYTES, Mark, mark_of
from kvmabi.device.memory import Memory
from kvmabi.device.structs import layout
from kvmabi.device.vcpu import VcpuFile
from kvmabi.device.vgic import ControlFile, VgicFile
from kvmabi.errors import KvmError
from kvmabi.events import Event, Kind
from kvmabi.model import enabling, stats, timer
from kvmabi.model.eventfds import IoEventFds
from kvmabi.model.refusal import Refusal
from kvmabi.model.slots import GuestMemfd, Slots
from kvmabi.model.smcccfilter import SmcccFilter
from kvmabi.model.vm import Vm

if TYPE_CHECKING:
    from kvmabi.guests.scripts import Script

CREATE_DEVICE = layout("struct kvm_create_device")
ENABLE_CAP = layout("struct kvm_enable_cap")
MASK_RANGE = layout("struct reg_mask_range")
COUNTER_OFFSET = layout("struct kvm_arm_counter_offset")
MTE_TAGS_BYTES = uapi.ffi.sizeof("struct kvm_arm_copy_mte_tags")
DEVICE_ADDR = layout("struct kvm_arm_device_addr")
MASKS_BYTES = uapi.ffi.sizeof("__u64") * uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE
DEVICES = frozenset({uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_TYPE_ARM_VGIC_ITS})
NOT_MODELLED = frozenset({uapi.KVM_DEV_TYPE_VFIO})
"""Devices that arm64 kernels have."""
CHECK_EXTENSION = "KVM_CHECK_EXTENSION"
CREATE_VCPU = "KVM_CREATE_VCPU"
INDEX_MASK = 0xFFFFFFFF
"""KVM_CREATE_VCPU takes 32 bits of its argument."""

FOREIGN_MEMORY = Refusal(errno.EIO, "a VM can be used only from the address space that created it")
DEAD = Refusal(errno.EIO, "the VM is dead: KVM_RUN could not map its vGIC")


class VmFile(DeviceFile):
    """The file that KVM_CREATE_VM opens. It belongs to the address space that created it.

    ``devices`` are those that were created. ``script`` is the guest of its vCPUs; ``has_scripts``: some have one.
    """

    kind = "vm"

    def __init__(
        self,
        system: DeviceFile,
        vm: Vm,
        address_space: Hashable,
        vcpu_attributes: Attributes,
        eventfds: EventFds,
        pid: int,
        script: Script | None = None,
    ) -> None:
        super().__init__(system.log, faults=system.faults)
        self.eventfds = eventfds
        self.ioeventfds = IoEventFds()
        self.vm = vm
        self.vm_number = vm.number
        self.address_space = address_space
        self.slots = Slots()
        self.memfds: dict[slots.Identity, GuestMemfd] = {}
        self.smccc_filter = SmcccFilter()
        self.attributes = vmattrs.ATTRIBUTES
        self.stats_id = f"kvm-{pid}"
        self.vcpus: list[VcpuFile] = []
        self.devices: list[ControlFile] = []
        self.vcpu_attributes = vcpu_attributes
        self.script = script
        self.has_scripts = script is not None

    def denies(self, memory: Memory) -> Refusal | None:
        """EIO for every address space except the VM's own, and for all callers once the VM is dead."""
        if memory.address_space is not self.address_space and memory.address_space != self.address_space:
            return FOREIGN_MEMORY
        return DEAD if self.vm.dead else None

    def controllers(self) -> dict[tuple[int, int], bytes]:
        """Every register of the VM's interrupt controllers now, by group and number of its attribute."""
        return {
            (group, number): value
            for device in self.devices
            for group, number in device.registers()
            if (value := peek(device, group, number)) is not None
        }

    def release(self) -> None:
        """Release what the VM holds, including the vCPUs' register files."""
        if self.log.detailed:
            self.report(Kind.RELEASED)
        self.eventfds.irqfds.close(self.vm.number)
        self.vm.close()

    def done(self, name: str, call: Call, before: object, outcome: Outcome) -> Answer:
        """See DeviceFile.done. A declared save or restore follows its ioctl."""
        answer = super().done(name, call, before, outcome)
        if name == CHECK_EXTENSION and outcome == 0 and (mark := mark_of(call.arg)) is not None:
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

    def vcpu_of(self, name: str, call: Call) -> int | None:
        """See DeviceFile.vcpu_of: KVM_CREATE_VCPU is about the one that it asks for."""
        return call.arg & INDEX_MASK if name == CREATE_VCPU else None

    def _create_vcpu(self, call: Call) -> DeviceFile:
        index = call.arg & INDEX_MASK
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
            known = kind not in NOT_MODELLED
            reason = f"this kernel has no device of type {kind}" if known else f"a device of type {kind}"
            raise KvmError(errno.ENODEV, reason, modelled=known)
        result: int | DeviceFile = 0
        if not flags & uapi.KVM_CREATE_DEVICE_TEST:
            its = kind == uapi.KVM_DEV_TYPE_ARM_VGIC_ITS
            result = ItsFile(self) if its else VgicFile(self, self.vm.create_vgic())
        call.write(call.arg, CREATE_DEVICE.pack(kind, fd, flags))  # EFAULT here does not undo the device
        return result

    def _create_irqchip(self, _call: Call) -> int:
        raise KvmError(errno.ENODEV, "the host cannot emulate a GICv2", hint="KVM_CREATE_DEVICE creates a vGICv3")

    def _check_extension(self, call: Call) -> int:
        call.argument = call.arg
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

    def _enable_cap(self, call: Call) -> int:
        capability, flags, argument, *_ = ENABLE_CAP.unpack(call.read(call.arg, ENABLE_CAP.size))
        enabling.enable(self.vm, self.slots, capability, flags, argument)
        return 0

    def _reset_dirty_rings(self, _call: Call) -> int:
        """No page is pushed to a ring, so none is reset."""
        if not self.vm.dirty_ring_bytes:
            raise KvmError(errno.EINVAL, "the VM has no dirty rings", hint="enable KVM_CAP_DIRTY_LOG_RING_ACQ_REL")
        return 0

    def _set_counter_offset(self, call: Call) -> Outcome:
        if not self.vm.system.check_extension(uapi.KVM_CAP_COUNTER_OFFSET, on_vm=True):
            return unknown(self, call)
        offset, reserved = COUNTER_OFFSET.unpack(call.read(call.arg, COUNTER_OFFSET.size))
        if reserved:
            raise KvmError(errno.EINVAL, "the reserved field of struct kvm_arm_counter_offset is zero")
        timer.set_offset(self.vm, offset)
        return 0

    def _get_stats_fd(self, _call: Call) -> PlainFile:
        return plainfiles.read_only("kvm-vm-stats", stats.contents(stats.OF_A_VM, self.stats_id))

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
        uapi.KVM_CREATE_VCPU: (CREATE_VCPU, _create_vcpu),
        uapi.KVM_CREATE_DEVICE: ("KVM_CREATE_DEVICE", _create_device),
        uapi.KVM_CREATE_IRQCHIP: ("KVM_CREATE_IRQCHIP", _create_irqchip),
        uapi.KVM_CHECK_EXTENSION: (CHECK_EXTENSION, _check_extension),
        uapi.KVM_ARM_PREFERRED_TARGET: ("KVM_ARM_PREFERRED_TARGET", _preferred_target),
        uapi.KVM_GET_ONE_REG: ("KVM_ARM_SET_DEVICE_ADDR", _set_device_addr),
        uapi.KVM_ENABLE_CAP: ("KVM_ENABLE_CAP", _enable_cap),
        uapi.KVM_ARM_GET_REG_WRITABLE_MASKS: ("KVM_ARM_GET_REG_WRITABLE_MASKS", _writable_masks),
        uapi.KVM_RESET_DIRTY_RINGS: ("KVM_RESET_DIRTY_RINGS", _reset_dirty_rings),
        uapi.KVM_ARM_SET_COUNTER_OFFSET: ("KVM_ARM_SET_COUNTER_OFFSET", _set_counter_offset),
        uapi.KVM_ARM_MTE_COPY_TAGS: ("KVM_ARM_MTE_COPY_TAGS", partial(refused, MTE_TAGS_BYTES)),
        uapi.KVM_GET_STATS_FD: ("KVM_GET_STATS_FD", _get_stats_fd),
        **interrupts.IOCTLS,
        **slots.IOCTLS,
        **vmattrs.IOCTLS,
    }


def _mask_index(id: int) -> int:
    """Returns a feature ID register's index in the table of masks, from op1, CRm and op2 of its encoding."""
    op1, crm, op2 = id >> 11 & 7, id >> 3 & 15, id & 7
    return uapi.KVM_ARM_FEATURE_ID_RANGE_INDEX(3, op1, 0, crm, op2)
