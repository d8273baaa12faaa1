# SPDX-License-Identifier: MIT
"""Files that an ioctl opens and that have no ioctls: statistics, and the memory of a guest."""

from __future__ import annotations

import fcntl
import os

from kvmabi.device.file import PlainFile, no_descriptor

SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
FLAGS = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING


def read_only(name: str, contents: bytes) -> PlainFile:
    """A file with these contents, which nobody can change. Raises KvmError, EMFILE."""
    try:
        fd = os.memfd_create(name, FLAGS)
        try:
            os.write(fd, contents)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SIZE_SEALS | fcntl.F_SEAL_WRITE)
            return PlainFile(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            os.close(fd)
    except OSError as error:
        raise no_descriptor(error) from None


def memory(name: str, size_bytes: int) -> PlainFile:
    """A file of zeroes that can be mapped and keeps its size. Raises KvmError, EMFILE."""
    try:
        fd = os.memfd_create(name, FLAGS)
        try:
            os.ftruncate(fd, size_bytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SIZE_SEALS)
        except OSError:
            os.close(fd)
            raise
        return PlainFile(fd)
    except OSError as error:
        raise no_descriptor(error) from None
