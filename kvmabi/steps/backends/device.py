# SPDX-License-Identifier: MIT
"""A real /dev/kvm of this machine as a backend."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable

from kvmabi import uapi
from kvmabi.environment import SOCKET_VARIABLE
from kvmabi.errors import UsageError
from kvmabi.steps.backends.base import Backend, kernel_for
from kvmabi.steps.doer import Doer
from kvmabi.steps.libcport import LibcPort

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
        try:
            port = LibcPort(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise UsageError(f"{device}: {error.strerror}") from None
        self._doer = Doer(port)
        if port.ioctl(port.kvm, uapi.KVM_GET_API_VERSION, 0) != uapi.KVM_API_VERSION:
            self._doer.close()
            raise UsageError(f"{device} is not a KVM device of API version {uapi.KVM_API_VERSION}")

    def answers(self, steps: Iterable[str]) -> list[str]:
        """See Backend.answers."""
        return [self._doer.do(step) for step in steps]

    def close(self) -> None:
        """See Backend.close."""
        self._doer.close()
