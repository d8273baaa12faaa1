# SPDX-License-Identifier: MIT
"""/dev/kvm as userspace sees it: files that answer ioctls from a model and the caller's memory."""

from kvmabi.device.file import DeviceFile
from kvmabi.device.memory import Memory, OwnMemory, ProcessMemory
from kvmabi.device.names import ioctl_names
from kvmabi.device.system import SystemFile, open_system
from kvmabi.device.vcpu import VcpuFile
from kvmabi.device.vm import VmFile

__all__ = [
    "DeviceFile",
    "Memory",
    "OwnMemory",
    "ProcessMemory",
    "SystemFile",
    "VcpuFile",
    "VmFile",
    "ioctl_names",
    "open_system",
]
