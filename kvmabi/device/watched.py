# SPDX-License-Identifier: MIT
"""The memory of a caller whose ioctl is recorded in detail: every copy, and every descriptor that is looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable

from kvmabi.detail import Access, Descriptor, Detail
from kvmabi.device.memory import Memory
from kvmabi.errors import KvmError

EVENTFD_NUMBER = re.compile(r"^eventfd-id:\s*(-?\d+)", re.MULTILINE)
EVENTFD = "eventfd"


class WatchedMemory:
    """A caller's memory (see kvmabi.device.memory.Memory) that notes what is copied in ``detail``."""

    def __init__(self, memory: Memory, detail: Detail) -> None:
        self.detail = detail
        self.pid = memory.pid
        self.address_space: Hashable = memory.address_space
        self._memory = memory

    def read(self, addr: int, size: int) -> bytes:
        """See Memory.read."""
        data = self._memory.read(addr, size)
        self.detail.accesses.append(Access(addr, size, data, writes=False))
        return data

    def peek(self, addr: int, size: int) -> bytes:
        """Read without a note."""
        return self._memory.read(addr, size)

    def write(self, addr: int, data: bytes) -> int:
        """See Memory.write."""
        done = self._memory.write(addr, data)
        self.detail.accesses.append(Access(addr, len(data), data[:done], writes=True))
        return done

    def take_own(self, fd: int) -> int:
        """Memory.take_fd without a note."""
        return self._memory.take_fd(fd)

    def take_fd(self, fd: int) -> int:
        """See Memory.take_fd."""
        try:
            copy = self._memory.take_fd(fd)
        except KvmError:
            self.detail.descriptors.append(Descriptor(fd, ""))
            raise
        self.detail.descriptors.append(Descriptor(fd, identity_of(copy)))
        return copy


def identity_of(fd: int) -> str:
    """What a descriptor of this process refers to, the same text for the same open file; an eventfd's says so."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii", errors="replace") as lines:
            eventfd = EVENTFD_NUMBER.search(lines.read())
        status = os.fstat(fd)
    except OSError:
        return ""
    return f"{EVENTFD} {eventfd[1]}" if eventfd else f"file {status.st_dev}:{status.st_ino}"
