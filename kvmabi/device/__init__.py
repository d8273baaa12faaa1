# SPDX-License-Identifier: MIT
"""/dev/kvm as userspace sees it: files that answer ioctls, out of a model and somebody's memory."""

from kvmabi.device.file import DeviceFile
from kvmabi.device.memory import Memory, ProcessMemory
from kvmabi.device.system import SystemFile, open_system
from kvmabi.device.vcpu import VcpuFile
from kvmabi.device.vm import VmFile

__all__ = ["DeviceFile", "Memory", "ProcessMemory", "SystemFile", "VcpuFile", "VmFile", "open_system"]
