# SPDX-License-Identifier: MIT
"""The KVM userspace ABI in Python: every name of include/linux/kvm.h.

Constants are ints, macros are functions (``KVM_REG_ARM64_SME_ZAHREG(3, 0)``; their arguments are
__u64; ``KVM_REG_ARM_CORE_REG("fp_regs.vregs[3]")`` takes a member as in C), structs come from
``ffi`` (``ffi.new("struct kvm_one_reg *")``). Both are generated from the headers when the package is
built; no number is typed here. https://docs.kernel.org/virt/kvm/api.html
"""

from __future__ import annotations

from typing import Any, Final

from kvmabi import _uapi_cffi, _uapi_macros
from kvmabi._uapi_macros import *  # noqa: F403
from kvmabi._uapi_macros import IOCTL_ARGUMENTS

ffi: Final[Any] = _uapi_cffi.ffi
"""The cffi instance with the structs. A V register is two __u64 in them, low half first."""

libc: Final[Any] = ffi.dlopen(None)
"""The C library's mmap, pread, pwrite, process_vm_readv and their counterparts, with addresses as numbers."""

IOCTL_NAMES: Final[dict[int, str]] = {vars(_uapi_macros)[name]: name for name in IOCTL_ARGUMENTS}
"""Request number to name. One number has two meanings: KVM_GET_ONE_REG on a vCPU, KVM_ARM_SET_DEVICE_ADDR on a VM."""

CAPABILITY_NAMES: Final[dict[int, str]] = {
    value: name for name, value in vars(_uapi_macros).items() if name.startswith("KVM_CAP_")
}
"""Number of a capability to name."""

_EXIT_DETAILS = ("KVM_EXIT_IO_IN", "KVM_EXIT_IO_OUT", "KVM_EXIT_FAIL_ENTRY_CPU_UNSUPPORTED")

EXIT_NAMES: Final[dict[int, str]] = {
    value: name
    for name, value in vars(_uapi_macros).items()
    if name.startswith("KVM_EXIT_") and "_FLAG_" not in name and name not in _EXIT_DETAILS
}
"""kvm_run.exit_reason to name."""


def ioctl_name(request: int) -> str:
    """Returns the name of an ioctl, or the number in hex if it is not one of KVM's."""
    return IOCTL_NAMES.get(request, f"{request:#x}")
