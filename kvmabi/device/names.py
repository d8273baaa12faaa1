# SPDX-License-Identifier: MIT
"""The names of ioctls."""

from __future__ import annotations

from kvmabi.device.file import DeviceFile
from kvmabi.device.system import SystemFile
from kvmabi.device.vcpu import VcpuFile
from kvmabi.device.vgic import ControlFile
from kvmabi.device.vm import VmFile


def ioctl_names() -> list[str]:
    """The names of the ioctls that some file of /dev/kvm has, in alphabetical order.

    >>> "KVM_SET_ONE_REG" in ioctl_names()
    True
    """
    kinds: tuple[type[DeviceFile], ...] = SystemFile, VmFile, VcpuFile, ControlFile
    return sorted({name for kind in kinds for name, _handler in kind.table.values()})
