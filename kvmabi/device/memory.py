# SPDX-License-Identifier: MIT
"""The caller's memory, as copy_from_user and copy_to_user see it: a bad address is a short copy, never a crash."""

from __future__ import annotations

import errno
import os
from collections.abc import Hashable
from threading import get_ident
from typing import Protocol

from kvmabi import forks
from kvmabi.errors import KvmError
from kvmabi.memfd import MemFd
from kvmabi.uapi import ffi, libc

ADDRESS_MASK = (1 << 64) - 1
PAGE_BYTES = 4096
SCRATCH_BYTES = 1 << 16
SYS_PIDFD_GETFD = 438
"""On every machine."""
UNSIGNED_MASK = (1 << 32) - 1
pread, pwrite = libc.pread, libc.pwrite


class Memory(Protocol):
    """The memory of a caller. ``address_space`` is its identity: a VM belongs to the one that created it.

    ``pid`` is the caller's process.
    """

    address_space: Hashable
    pid: int

    def read(self, addr: int, size: int) -> bytes:
        """The bytes from ``addr`` up to the first that cannot be read: fewer than ``size`` is a fault."""

    def write(self, addr: int, data: bytes) -> int:
        """Write ``data`` to ``addr``; returns the number of bytes before the first that could not be written."""

    def take_fd(self, fd: int) -> int:
        """A new descriptor of this process for the file behind a descriptor of the caller's. Raises KvmError, EBADF."""


class ProcessMemory:
    """The memory of a process through process_vm_readv and process_vm_writev. For one thread."""

    def __init__(self, pid: int, address_space: Hashable) -> None:
        self.pid = pid
        self.address_space = address_space
        self._here, self._there = ffi.new("uintptr_t[2]"), ffi.new("uintptr_t[2]")
        self._resize(SCRATCH_BYTES)

    def _resize(self, size: int) -> None:
        self._room = size
        self._scratch = ffi.new("char[]", size)
        self._bytes = ffi.buffer(self._scratch)
        self._here[0] = int(ffi.cast("uintptr_t", self._scratch))

    def read(self, addr: int, size: int) -> bytes:
        """See Memory.read."""
        self._describe(addr, size)
        done = libc.process_vm_readv(self.pid, self._here, 1, self._there, 1, 0)
        return self._bytes[: max(0, done)]  # type: ignore[no-any-return]

    def write(self, addr: int, data: bytes) -> int:
        """See Memory.write."""
        size = len(data)
        self._describe(addr, size)
        self._bytes[:size] = data
        done: int = libc.process_vm_writev(self.pid, self._here, 1, self._there, 1, 0)
        return max(0, done)

    def take_fd(self, fd: int) -> int:
        """See Memory.take_fd."""
        try:
            process = os.pidfd_open(self.pid)
        except OSError as error:
            raise bad_descriptor(fd, error) from None
        try:
            copy: int = libc.syscall(SYS_PIDFD_GETFD, process, fd & UNSIGNED_MASK, 0)
            if copy < 0:
                raise bad_descriptor(fd, OSError(ffi.errno, ""))
            return copy
        finally:
            os.close(process)

    def _describe(self, addr: int, size: int) -> None:
        """Set both struct iovec: the scratch memory, and the process's."""
        if size > self._room:
            self._resize(size)
        self._there[0], self._there[1] = addr & ADDRESS_MASK, size
        self._here[1] = size


def take_own_fd(fd: int) -> int:
    """Memory.take_fd for a caller in this process."""
    try:
        return os.dup(fd)
    except (OSError, OverflowError) as error:
        raise bad_descriptor(fd, error) from None


def bad_descriptor(fd: int, error: Exception) -> KvmError:
    """EBADF for a descriptor that is not open, EMFILE if this process cannot have one more."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return KvmError(errno.EMFILE, "no file descriptor is left", hint="raise RLIMIT_NOFILE (ulimit -n)")
    return KvmError(errno.EBADF, f"file descriptor {fd} is not open")


class OwnMemory:
    """The memory of this process. Copies go through a memfd: pread and pwrite cost half of process_vm_readv.

    A short copy, or one for which there is no memfd, is done by process_vm_readv or process_vm_writev, which stop at
    the very byte that faults.
    """

    def __init__(self) -> None:
        self.address_space: Hashable = object()
        self.pid = os.getpid()
        self.forks = forks.count
        self._scratches: dict[int, MemFd] = {}

    def read(self, addr: int, size: int) -> bytes:
        """See Memory.read."""
        scratch = self._scratches.get(get_ident()) or self._scratch()
        if scratch is not None and size <= SCRATCH_BYTES and pwrite(scratch.fd, addr & ADDRESS_MASK, size, 0) == size:
            return scratch.memory[:size]  # type: ignore[no-any-return]
        return ProcessMemory(os.getpid(), None).read(addr, size)

    def write(self, addr: int, data: bytes) -> int:
        """See Memory.write."""
        size = len(data)
        scratch = self._scratches.get(get_ident()) or self._scratch()
        if scratch is not None and size <= SCRATCH_BYTES:
            scratch.memory[:size] = data
            if pread(scratch.fd, addr & ADDRESS_MASK, size, 0) == size:
                return size
        return ProcessMemory(os.getpid(), None).write(addr, data)

    def take_fd(self, fd: int) -> int:
        """See Memory.take_fd."""
        return take_own_fd(fd)

    def close(self) -> None:
        """Give the scratch memory back."""
        for scratch in self._scratches.values():
            scratch.close()
        self._scratches.clear()

    def _scratch(self) -> MemFd | None:
        """This thread's scratch memory: the copies release the interpreter's lock. None if no descriptor is left."""
        try:
            scratch = self._scratches[get_ident()] = MemFd("kvmabi-copies", SCRATCH_BYTES)
        except OSError:
            return None
        return scratch
