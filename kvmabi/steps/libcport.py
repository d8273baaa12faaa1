# SPDX-License-Identifier: MIT
"""Steps on the /dev/kvm of this machine: the C library's ioctl, and mapped and unmapped memory."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal

from kvmabi import uapi
from kvmabi.device.structs import layout
from kvmabi.steps.grammar import EDGE_BYTES, GUEST_BYTES, MAX_IDS
from kvmabi.steps.named import NamedDescriptors

PAYLOAD_BYTES = 1 << 15  # the largest size that an ID's size field encodes
ARGUMENT_BYTES = 4096
ARRAY_BYTES = layout("__u64").size * (1 + MAX_IDS)
ENTER_SECONDS = 0.01
"""How long a guest runs in ``enter`` before a signal ends it."""
IMMEDIATE_EXIT = uapi.ffi.offsetof("struct kvm_run", "immediate_exit")


class RealMemory:
    """The StepMemory of this process. EDGE_BYTES is a multiple of every page size of arm64."""

    def __init__(self) -> None:
        self._mapped = mmap.mmap(-1, 2 * EDGE_BYTES)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._mapped))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(start + EDGE_BYTES), ctypes.c_size_t(EDGE_BYTES), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        self._edge = start + EDGE_BYTES
        sizes = ARGUMENT_BYTES, PAYLOAD_BYTES, ARRAY_BYTES
        self._guest = mmap.mmap(-1, GUEST_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.guest = ctypes.addressof(ctypes.c_char.from_buffer(self._guest))
        self._buffers = [ctypes.create_string_buffer(size) for size in sizes]
        self.argument, self.payload, self.array = (ctypes.addressof(buffer) for buffer in self._buffers)
        self._sizes = dict(zip((self.argument, self.payload, self.array), sizes, strict=True))

    def poke(self, addr: int, data: bytes) -> None:
        """See StepMemory.poke."""
        size = self._sizes.get(addr, self._edge - addr)
        ctypes.memmove(addr, data, len(data))
        ctypes.memset(addr + len(data), 0, size - len(data))

    def peek(self, addr: int, size: int) -> bytes:
        """See StepMemory.peek."""
        return ctypes.string_at(addr, size)

    def edge(self, size: int) -> int:
        """See StepMemory.edge."""
        return self._edge - size

    def write_guest(self, offset: int, data: bytes) -> None:
        """See StepMemory.write_guest."""
        ctypes.memmove(self.guest + offset, data, len(data))

    def read_guest(self, offset: int, size: int) -> bytes:
        """See StepMemory.read_guest."""
        return ctypes.string_at(self.guest + offset, size)

    def clear_guest(self) -> None:
        """See StepMemory.clear_guest."""
        self._guest.madvise(mmap.MADV_DONTNEED)


class LibcPort:
    """An open /dev/kvm of this machine; ``kvm`` is its descriptor, which the port owns."""

    memory: RealMemory

    def __init__(self, kvm: int) -> None:
        self.kvm = kvm
        self.memory = RealMemory()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
        self._runs: dict[int, mmap.mmap] = {}
        self._named = NamedDescriptors()
        self._errno = 0

    @property
    def reason(self) -> str:
        """See Port.reason: a kernel reports only the errno."""
        return os.strerror(self._errno) if self._errno else ""

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        """See Port.ioctl."""
        result: int = self._libc.ioctl(fd, request, argument)
        if result >= 0:
            return result
        self._errno = ctypes.get_errno()
        return -self._errno

    def immediate_exit(self, fd: int, value: bool) -> int:
        """See Port.immediate_exit."""
        if fd not in self._runs:
            size = self.ioctl(self.kvm, uapi.KVM_GET_VCPU_MMAP_SIZE, 0)
            if size < 0:
                return size
            try:
                self._runs[fd] = mmap.mmap(fd, size)
            except (OSError, ValueError) as error:
                self._errno = getattr(error, "errno", 0) or errno.EBADF
                return -self._errno
        self._runs[fd][IMMEDIATE_EXIT] = value
        return 0

    def enter(self, fd: int) -> int:
        """See Port.enter. The thread that calls it must be the main one, which alone gets Python's signals."""
        before = signal.signal(signal.SIGALRM, _nothing)
        signal.setitimer(signal.ITIMER_REAL, ENTER_SECONDS, ENTER_SECONDS)
        try:
            return self.ioctl(fd, uapi.KVM_RUN, 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def descriptor(self, name: str) -> int:
        """See Port.descriptor."""
        return self._named.get(name)

    def keep_guest_memfd(self, fd: int) -> None:
        """See Port.keep_guest_memfd."""
        self._named.keep_guest_memfd(fd)

    def contents(self, fd: int, most: int) -> bytes:
        """See Port.contents."""
        return os.pread(fd, most, 0)

    def close(self, fd: int) -> None:
        """See Port.close."""
        run = self._runs.pop(fd, None)
        if run is not None:
            run.close()
        os.close(fd)

    def shut(self) -> None:
        """See Port.shut."""
        for fd in list(self._runs):
            self._runs.pop(fd).close()
        self._named.close()
        os.close(self.kvm)

    def cpu_features(self) -> str:
        """See Port.cpu_features."""
        try:
            with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
                features = (line.partition(":")[2].strip() for line in lines if line.startswith("Features"))
                return next(features, "")
        except OSError:
            return ""


def _nothing(_number: int, _frame: object) -> None:
    """A handler: the signal has done its work by interrupting an ioctl."""
