# SPDX-License-Identifier: MIT
"""A real /dev/kvm of this machine as a backend."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable

from kvmabi import uapi
from kvmabi.conformance.backends.base import Backend, kernel_for
from kvmabi.conformance.ioctls import Ioctls
from kvmabi.environment import SOCKET_VARIABLE
from kvmabi.errors import UsageError

DEVICE = "/dev/kvm"
MACHINES = ("aarch64", "arm64")
INTERPOSED = SOCKET_VARIABLE
"""Set where ``kvmabi run`` started this process: then /dev/kvm is an arm64 one on any machine."""


class DeviceBackend(Backend):
    """The kernel of this machine; UsageError where it is not arm64, or the device cannot be opened."""

    name = "device"

    def __init__(self, device: str = DEVICE, kernel: str | None = None) -> None:
        super().__init__()
        if platform.machine() not in MACHINES and INTERPOSED not in os.environ:
            raise UsageError(
                f"this machine is {platform.machine()}: the KVM of an arm64 host is needed (try --backend vm)"
            )
        self.release = platform.release()
        self.kernel = kernel_for(self.release, kernel)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
        try:
            self._fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{device}: {error.strerror}") from None
        try:
            version = self._do(self._fd, uapi.KVM_GET_API_VERSION, 0)
        except OSError:
            version = -1
        if version != uapi.KVM_API_VERSION:
            os.close(self._fd)
            raise UsageError(f"{device} is no KVM device of API version {uapi.KVM_API_VERSION}")
        self._ioctls = Ioctls(self._fd, self._do, os.close)

    def answers(self, steps: Iterable[str]) -> list[str]:
        """See Backend.answers."""
        return [self._ioctls.do(step) for step in steps]

    def close(self) -> None:
        """See Backend.close."""
        self._ioctls.close()
        os.close(self._fd)

    def _do(self, fd: int, request: int, argument: int) -> int:
        result: int = self._libc.ioctl(fd, request, argument)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
