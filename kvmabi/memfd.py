# SPDX-License-Identifier: MIT
"""Memory that other processes can map: a memfd and this process's mapping of it."""

from __future__ import annotations

import errno
import os
from typing import Any

from kvmabi.uapi import ffi, libc

PROT_READ_WRITE = 3
MAP_SHARED = 1
MAP_FAILED = (1 << 64) - 1


class MemFd:
    """``size_bytes`` of zeroes behind the descriptor ``fd``; ``memory`` is a buffer of them.

    Python's mmap would keep a second descriptor, and a VMM with 512 vCPUs has two for each already. Slices of
    ``memory`` are bytes; it must not be used after ``close``. Errors: OSError.
    """

    __slots__ = ("_address", "fd", "memory", "size_bytes")

    def __init__(self, name: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size_bytes)
            self._address = libc.mmap(0, size_bytes, PROT_READ_WRITE, MAP_SHARED, self.fd, 0)
            if self._address == MAP_FAILED:
                raise OSError(errno.ENOMEM, "the memory cannot be mapped")
        except OSError:
            os.close(self.fd)
            raise
        self.memory: Any = ffi.buffer(ffi.cast("char *", self._address), size_bytes)

    def close(self) -> None:
        """Unmap the memory and close the descriptor."""
        del self.memory
        libc.munmap(self._address, self.size_bytes)
        os.close(self.fd)
