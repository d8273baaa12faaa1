# SPDX-License-Identifier: MIT
"""The caller's memory, as copy_from_user and copy_to_user see it: a bad address is a short copy, never a crash."""

from __future__ import annotations

import ctypes
from collections.abc import Hashable
from typing import Protocol

ADDRESS_MASK = (1 << 64) - 1
PAGE_BYTES = 4096


class _Iovec(ctypes.Structure):
    _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))


_libc = ctypes.CDLL(None)
for _call in (_libc.process_vm_readv, _libc.process_vm_writev):
    _vector = ctypes.POINTER(_Iovec), ctypes.c_ulong
    _call.argtypes = (ctypes.c_int, *_vector, *_vector, ctypes.c_ulong)
    _call.restype = ctypes.c_ssize_t


class Memory(Protocol):
    """Somebody's memory. ``address_space`` is its identity: a VM belongs to the one that created it."""

    address_space: Hashable

    def read(self, addr: int, size: int) -> bytes:
        """The bytes from ``addr`` up to the first that cannot be read: fewer than ``size`` is a fault."""

    def write(self, addr: int, data: bytes) -> int:
        """Write ``data`` to ``addr``; tells how many bytes were written before the first that could not be."""


class ProcessMemory:
    """The memory of a process, this one included, through process_vm_readv and process_vm_writev."""

    def __init__(self, pid: int, address_space: Hashable) -> None:
        self.pid = pid
        self.address_space = address_space

    def read(self, addr: int, size: int) -> bytes:
        """See Memory.read."""
        buffer = ctypes.create_string_buffer(size)
        here, there = _Iovec(ctypes.addressof(buffer), size), _Iovec(addr & ADDRESS_MASK, size)
        done = _libc.process_vm_readv(self.pid, here, 1, there, 1, 0)
        return buffer.raw[: max(0, done)]

    def write(self, addr: int, data: bytes) -> int:
        """See Memory.write."""
        size = len(data)
        buffer = ctypes.create_string_buffer(data, size)
        here, there = _Iovec(ctypes.addressof(buffer), size), _Iovec(addr & ADDRESS_MASK, size)
        done: int = _libc.process_vm_writev(self.pid, here, 1, there, 1, 0)
        return max(0, done)
