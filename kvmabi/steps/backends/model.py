# SPDX-License-Identifier: MIT
"""The model as a backend: a host profile under a kernel profile."""

from __future__ import annotations

from collections.abc import Iterable

from kvmabi.device import open_system
from kvmabi.events import EventLog
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.steps.backends.base import Backend
from kvmabi.steps.doer import Doer
from kvmabi.steps.modelport import ModelPort


class ModelBackend(Backend):
    """A host and a kernel, by name, file or as loaded. UsageError for an unknown name."""

    name = "model"

    def __init__(self, host: str | Host, kernel: str | Kernel | None = None) -> None:
        super().__init__()
        profile = load_host(host) if isinstance(host, str) else host
        self.kernel = kernel if isinstance(kernel, Kernel) else load_kernel(kernel or profile.kernel)
        self.release = self.kernel.label
        self._doer = Doer(ModelPort(open_system(profile, self.kernel, EventLog(kept=0))))

    def answers(self, steps: Iterable[str]) -> list[str]:
        """See Backend.answers."""
        return [self._doer.do(step) for step in steps]

    def close(self) -> None:
        """See Backend.close."""
        self._doer.close()
