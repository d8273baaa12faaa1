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
    """``size_bytes`` of zeroes behind the descriptor ``fd``; ``memory`` is a buffer of them, whose slices are bytes.

    Python's mmap would keep a second descriptor, and a VMM with 512 vCPUs has two for each already. The mapping lasts
    as long as something refers to ``memory``. Errors: OSError.
    """

    __slots__ = ("fd", "memory")

    def __init__(self, name: str, size_bytes: int) -> None:
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size_bytes)
            address = libc.mmap(0, size_bytes, PROT_READ_WRITE, MAP_SHARED, self.fd, 0)
            if address == MAP_FAILED:
                raise OSError(errno.ENOMEM, "the memory cannot be mapped")
        except OSError:
            os.close(self.fd)
            raise
        mapping = ffi.gc(ffi.cast("char *", address), lambda _mapping: libc.munmap(address, size_bytes))
        self.memory: Any = ffi.buffer(mapping, size_bytes)

    def close(self) -> None:
        """Close the descriptor and give up the memory."""
        del self.memory
        os.close(self.fd)
