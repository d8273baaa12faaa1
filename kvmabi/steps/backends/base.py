# SPDX-License-Identifier: MIT
"""The base class of backends, which answer steps as a kernel does and describe what their host offers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType

from kvmabi.errors import UsageError
from kvmabi.profiles import Kernel, load_kernel
from kvmabi.profiles.kernel import kernel_names
from kvmabi.steps.hostfeatures import HostFeatures
from kvmabi.steps.probe import probe

RELEASE = re.compile(r"(\d+)\.(\d+)")
MAINLINE = re.compile(r"linux-(\d+)\.(\d+)")


class Backend(ABC):
    """A kernel on a host. ``kernel`` is the kernel profile, ``release`` the kernel's own release string."""

    name: str
    kernel: Kernel
    release: str

    def __init__(self) -> None:
        self._host_features: HostFeatures | None = None

    @abstractmethod
    def answers(self, steps: Iterable[str]) -> list[str]:
        """Returns the answers to steps (kvmabi.steps.grammar), in order; state persists from call to call."""

    def describe(self) -> HostFeatures:
        """Returns what the host offers, probed once."""
        if self._host_features is None:
            self._host_features = probe(self)
        return self._host_features

    @abstractmethod
    def close(self) -> None:
        """Release what the backend holds."""

    def __enter__(self) -> Backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def kernel_for(release: str, name: str | None) -> Kernel:
    """Returns the kernel profile of a name, or the newest mainline one that is not newer than a release.

    Raises UsageError for a release that is older than every profile.
    """
    if name is not None:
        return load_kernel(name)
    numbers = RELEASE.match(release)
    if numbers is None:
        raise UsageError(f"{release!r} is not a release of Linux: name the kernel's profile with --kernel")
    version = int(numbers[1]), int(numbers[2])
    profiles = [(int(m[1]), int(m[2])) for m in map(MAINLINE.fullmatch, kernel_names()) if m]
    fitting = [profile for profile in profiles if profile <= version]
    if not fitting:
        raise UsageError(f"no kernel profile is as old as Linux {release}: name one with --kernel")
    return load_kernel("linux-{}.{}".format(*max(fitting)))
