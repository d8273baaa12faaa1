# SPDX-License-Identifier: MIT
"""The file descriptors that this process got from one /dev/kvm, and the device file behind each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from kvmabi.device.file import DeviceFile, no_descriptor
from kvmabi.device.vcpu import VcpuFile
from kvmabi.errors import KvmError

Identity = tuple[int, int]
"""Device and inode of a descriptor's file: dup does not change them."""


class HasFileno(Protocol):
    """A file object."""

    def fileno(self) -> int:
        """The object's descriptor."""


class Descriptors:
    """Real descriptors for device files. A file is closed with the descriptor that was handed out for it."""

    def __init__(self) -> None:
        self._files: dict[Identity, DeviceFile] = {}
        self._fds: dict[Identity, int] = {}

    def install(self, file: DeviceFile) -> int:
        """Returns a new descriptor for a file. Raises KvmError, EMFILE, and undoes what opened the file."""
        try:
            fd = os.dup(file.run_fd) if isinstance(file, VcpuFile) else os.memfd_create(f"kvm-{file.kind}")
        except OSError as error:
            file.discard()
            raise no_descriptor(error) from None
        identity = _identity(fd)
        self._files[identity], self._fds[identity] = file, fd
        file.opened()
        return fd

    def file(self, fd: int | HasFileno) -> DeviceFile:
        """Returns the device file behind a descriptor. Raises KvmError, EBADF, for any other descriptor."""
        file = self._files.get(_identity(fd))
        if file is None:
            raise KvmError(errno.EBADF, f"file descriptor {fd} was not opened through this Kvm")
        return file

    def files(self) -> Iterable[DeviceFile]:
        """Every file that is open."""
        return self._files.values()

    def handed_out(self) -> Iterable[tuple[int, DeviceFile]]:
        """Every file that is open, with the descriptor that was handed out for it."""
        return [(self._fds[identity], file) for identity, file in self._files.items()]

    def close(self, fd: int) -> None:
        """Close a descriptor; a duplicate of the one that was handed out leaves the file open."""
        self.file(fd)
        identity = _identity(fd)
        if fd == self._fds[identity]:
            self._close(identity)
        else:
            os.close(fd)

    def close_all(self) -> None:
        """Close every descriptor that was handed out, the last one first."""
        for identity in reversed(list(self._files)):
            self._close(identity)

    def _close(self, identity: Identity) -> None:
        file, fd = self._files.pop(identity), self._fds.pop(identity)
        file.closed()
        with suppress(KvmError):  # the user may have closed it by os.close and opened another file under its number
            if _identity(fd) == identity:
                os.close(fd)


def _identity(fd: int | HasFileno) -> Identity:
    """Raises KvmError, EBADF, for a descriptor that is not open."""
    number = fd if isinstance(fd, int) else fd.fileno()
    try:
        stat = os.fstat(number)
    except (OSError, OverflowError):
        raise KvmError(errno.EBADF, f"file descriptor {number} is not open") from None
    return stat.st_dev, stat.st_ino
