# SPDX-License-Identifier: MIT
"""The descriptors that arguments of steps name: eventfds, another kind of file, and a guest_memfd."""

from __future__ import annotations

import os

from kvmabi.steps.grammar import GUEST_MEMFD, OTHER_FILE


class NamedDescriptors:
    """Descriptors of this process, each opened when it is first asked for."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def get(self, name: str) -> int:
        """See Port.descriptor."""
        if name not in self._fds and name != GUEST_MEMFD:
            other = name == OTHER_FILE
            self._fds[name] = os.memfd_create("other") if other else os.eventfd(0, os.EFD_CLOEXEC)
        return self._fds.get(name, -1)

    def keep_guest_memfd(self, fd: int) -> None:
        """See Port.keep_guest_memfd."""
        if GUEST_MEMFD in self._fds:
            os.close(self._fds[GUEST_MEMFD])
        self._fds[GUEST_MEMFD] = fd

    def close(self) -> None:
        """Close them."""
        while self._fds:
            os.close(self._fds.popitem()[1])
