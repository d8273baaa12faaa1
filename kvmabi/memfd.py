# SPDX-License-Identifier: MIT
"""Memory that other processes can map: a memfd and this process's mapping of it."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

from kvmabi.uapi import ffi, libc

PROT_READ_WRITE = 3
MAP_SHARED = 1
MAP_FAILED = (1 << 64) - 1
FLAGS = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def map_shared(fd: int, offset: int, size_bytes: int) -> Any:
    """A buffer of ``size_bytes`` bytes of a file from ``offset``, which others see change. Errors: OSError."""
    address = libc.mmap(0, size_bytes, PROT_READ_WRITE, MAP_SHARED, fd, offset)
    if address == MAP_FAILED:
        raise OSError(errno.ENOMEM, "the memory cannot be mapped")
    mapping = ffi.gc(ffi.cast("char *", address), lambda _mapping: libc.munmap(address, size_bytes))
    return ffi.buffer(mapping, size_bytes)


def sealed(name: str, contents: bytes | None = None, size_bytes: int = 0) -> int:
    """The descriptor of a new file whose size never changes: of ``contents``, which do not change either, or of zeroes.

    Errors: OSError.
    """
    fd = os.memfd_create(name, FLAGS)
    try:
        if contents is None:
            os.ftruncate(fd, size_bytes)
        else:
            os.write(fd, contents)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SIZE_SEALS if contents is None else SIZE_SEALS | fcntl.F_SEAL_WRITE)
    except OSError:
        os.close(fd)
        raise
    return fd


class MemFd:
    """``size_bytes`` of zeroes behind the descriptor ``fd``; ``memory`` is a buffer of them, whose slices are bytes.

    Python's mmap would keep a second descriptor, and a VMM with 512 vCPUs has two for each already. The mapping lasts
    as long as something refers to ``memory``. Errors: OSError.
    """

    __slots__ = ("fd", "memory")

    def __init__(self, name: str, size_bytes: int) -> None:
        self.fd = os.memfd_create(name, FLAGS)
        try:
            os.ftruncate(self.fd, size_bytes)
            self.memory = map_shared(self.fd, 0, size_bytes)
        except OSError:
            os.close(self.fd)
            raise

    def close(self) -> None:
        """Close the descriptor and give up the memory."""
        del self.memory
        os.close(self.fd)
