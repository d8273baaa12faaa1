# SPDX-License-Identifier: MIT
"""The model as a backend: a host profile under a kernel profile, through the same ioctls as a real one."""

from __future__ import annotations

from collections.abc import Iterable

from kvmabi import kvm
from kvmabi.conformance.backends.base import Backend
from kvmabi.conformance.ioctls import Ioctls
from kvmabi.profiles import Host, Kernel


class ModelBackend(Backend):
    """A host and a kernel, by name, file or as loaded; UsageError as ``kvm.open_kvm``."""

    name = "model"

    def __init__(self, host: str | Host, kernel: str | Kernel | None = None) -> None:
        super().__init__()
        self._kvm = kvm.open_kvm(host=host, kernel=kernel, kept_events=0)
        self.kernel = self._kvm.kernel
        self.release = self.kernel.name
        self._ioctls = Ioctls(self._kvm.fd, self._do, self._kvm.close)

    def answers(self, steps: Iterable[str]) -> list[str]:
        """See Backend.answers."""
        return [self._ioctls.do(step) for step in steps]

    def close(self) -> None:
        """See Backend.close."""
        self._ioctls.close()
        self._kvm.close()

    def _do(self, fd: int, request: int, argument: int) -> int:
        result = self._kvm.ioctl(fd, request, argument)
        assert isinstance(result, int)
        return result
