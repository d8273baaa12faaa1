# SPDX-License-Identifier: MIT
"""Files that an ioctl opens and that have no ioctls: statistics, and the memory of a guest."""

from __future__ import annotations

import os

from kvmabi import memfd
from kvmabi.device.file import PlainFile, no_descriptor


def read_only(name: str, contents: bytes) -> PlainFile:
    """A file with these contents, which nobody can change. Raises KvmError, EMFILE."""
    try:
        fd = memfd.sealed(name, contents)
        try:
            return PlainFile(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            os.close(fd)
    except OSError as error:
        raise no_descriptor(error) from None


def memory(name: str, size_bytes: int) -> PlainFile:
    """A file of zeroes that can be mapped and keeps its size. Raises KvmError, EMFILE."""
    try:
        return PlainFile(memfd.sealed(name, size_bytes=size_bytes))
    except OSError as error:
        raise no_descriptor(error) from None
