# SPDX-License-Identifier: MIT
"""/dev/kvm itself: the ioctls of the system file."""

from __future__ import annotations

import errno
from itertools import count
from typing import TYPE_CHECKING, ClassVar

from kvmabi import uapi
from kvmabi.device import vcpuattrs
from kvmabi.device.eventfds import EventFds
from kvmabi.device.file import Call, DeviceFile, Handler, no_argument
from kvmabi.device.vm import VmFile
from kvmabi.errors import KvmError
from kvmabi.events import EventLog
from kvmabi.faults import Faults
from kvmabi.model.eventfds import IrqFds
from kvmabi.model.system import System
from kvmabi.model.vm import IPA_BITS, Vm
from kvmabi.profiles import Host, Kernel

if TYPE_CHECKING:
    from kvmabi.guests.scripts import Script

IPA_BITS_LEAST = 32


def open_system(
    host: Host, kernel: Kernel, log: EventLog, script: Script | None = None, faults: Faults | None = None
) -> SystemFile:
    """Open /dev/kvm of a host under a kernel; every ioctl of it and of its VMs goes to ``log``.

    ``script`` is the guest of every vCPU, ``faults`` strike ioctls.
    """
    return SystemFile(System(host, kernel), log, script, faults)


class SystemFile(DeviceFile):
    """The file behind open("/dev/kvm"). VMs do not keep it alive."""

    kind = "system"

    def __init__(
        self, system: System, log: EventLog, script: Script | None = None, faults: Faults | None = None
    ) -> None:
        super().__init__(log, faults=faults)
        self.system = system
        self._script = script
        self._numbers = count(1)
        self._eventfds = EventFds(IrqFds(one_vm=system.kernel.switches.irqfd_in_one_vm))
        self._vcpu_attributes = vcpuattrs.attributes(system.kernel)

    def release(self) -> None:
        """Release the memory of closed vCPUs, and descriptors."""
        self._eventfds.close()
        self.system.close()

    def _get_api_version(self, call: Call) -> int:
        no_argument(call)
        return self.system.kernel.api_version

    def _create_vm(self, call: Call) -> DeviceFile:
        bits = call.arg & uapi.KVM_VM_TYPE_ARM_IPA_SIZE_MASK
        most = self.system.check_extension(uapi.KVM_CAP_ARM_VM_IPA_SIZE, on_vm=False)
        if call.arg != bits or (bits and not IPA_BITS_LEAST <= bits <= most):
            raise KvmError(errno.EINVAL, f"a VM's type is its IPA size, 0 or {IPA_BITS_LEAST} to {most} bits")
        vm = Vm(self.system, next(self._numbers), bits or IPA_BITS)
        memory = call.memory
        return VmFile(self, vm, memory.address_space, self._vcpu_attributes, self._eventfds, memory.pid, self._script)

    def _check_extension(self, call: Call) -> int:
        call.argument = call.arg
        return self.system.check_extension(call.arg, on_vm=False)

    def _get_vcpu_mmap_size(self, call: Call) -> int:
        no_argument(call)
        return self.system.kernel.vcpu_mmap_bytes

    table: ClassVar[dict[int, tuple[str, Handler]]] = {
        uapi.KVM_GET_API_VERSION: ("KVM_GET_API_VERSION", _get_api_version),
        uapi.KVM_CREATE_VM: ("KVM_CREATE_VM", _create_vm),
        uapi.KVM_CHECK_EXTENSION: ("KVM_CHECK_EXTENSION", _check_extension),
        uapi.KVM_GET_VCPU_MMAP_SIZE: ("KVM_GET_VCPU_MMAP_SIZE", _get_vcpu_mmap_size),
    }
