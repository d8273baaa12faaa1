# SPDX-License-Identifier: MIT
"""Whether this machine has the KVM of an arm64 kernel, and which kernel profile it has."""

from __future__ import annotations

import fcntl
import os
import platform

from kvmabi import uapi
from kvmabi.errors import UsageError
from kvmabi.profiles import Kernel
from kvmabi.steps.backends.base import kernel_for

DEVICE = "/dev/kvm"


def check(kernel: str | None) -> Kernel:
    """Returns the profile of the machine's kernel, or the one that is named.

    Raises UsageError where /dev/kvm cannot be opened, or is not an arm64 kernel's: no other has a VM's IPA size.
    """
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{DEVICE}: {error.strerror}") from None
    try:
        if fcntl.ioctl(fd, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_ARM_VM_IPA_SIZE) <= 0:
            raise UsageError(f"{DEVICE} of this machine ({platform.machine()}) is not the KVM of an arm64 kernel")
    except OSError as error:
        raise UsageError(f"{DEVICE} is not a KVM device: {error.strerror}") from None
    finally:
        os.close(fd)
    return kernel_for(platform.release(), kernel)
