# SPDX-License-Identifier: MIT
"""/dev/kvm in this process: ``Kvm.ioctl`` takes what ``fcntl.ioctl`` takes, on file descriptors that are real."""

from __future__ import annotations

import errno
import os
import signal
from types import TracebackType
from typing import Any

from kvmabi import uapi
from kvmabi.device import DeviceFile, ProcessMemory, SystemFile, VcpuFile, open_system
from kvmabi.errors import KvmError, UsageError
from kvmabi.events import KEPT, EventLog
from kvmabi.model.vcpu import Vcpu
from kvmabi.objects import Vm
from kvmabi.order import Finding, OrderChecker
from kvmabi.profiles import Host, Kernel, load_host, load_kernel

MAX_ARG = (1 << 64) - 1


class Kvm:
    """An open /dev/kvm of a host under a kernel. ``fd`` is its file descriptor, ``log`` its stream of events.

    File descriptors that its ioctls hand out are the process's own: a vCPU's can be mapped with
    mmap, all can be closed with ``close`` (or with os.close, which ``Kvm`` learns of at its own close).
    """

    def __init__(self, host: Host, kernel: Kernel, *, kept_events: int = KEPT) -> None:
        self.host = host
        self.kernel = kernel
        self.log = EventLog(kept=kept_events)
        self._checker = OrderChecker()
        self.log.watchers.append(self._checker.watch)
        self._files: dict[tuple[int, int], DeviceFile] = {}
        self._memory = ProcessMemory(os.getpid(), os.getpid())
        self.fd = self._install(open_system(host, kernel, self.log))

    def ioctl(self, fd: int, request: int, arg: Any = 0) -> int | bytes:
        """Do an ioctl on a file descriptor of this Kvm.

        ``arg`` is a number (an address, or a value for ioctls that take one), a cffi pointer, a writable
        buffer, which is changed in place, or bytes: then the changed bytes are the result.
        Raises KvmError with the errno that the kernel gives, EBADF for a foreign descriptor.
        """
        file = self.file(fd)
        if isinstance(arg, bytes):
            copy = bytearray(arg)
            self._do(file, request, self._address(copy))
            return bytes(copy)
        return self._do(file, request, self._address(arg))

    def create_vm(self, *, ipa_bits: int = 0) -> Vm:
        """KVM_CREATE_VM: a VM as an object; ``ipa_bits`` 0 is the kernel's default of 40."""
        return Vm(self, int(self.ioctl(self.fd, uapi.KVM_CREATE_VM, ipa_bits)))

    def findings(self) -> list[Finding]:
        """What the order checker found so far, judging every vCPU as if it were closed now."""
        for file in self._files.values():
            if isinstance(file, VcpuFile):
                file.tell_state("state")
        return list(self._checker.findings)

    def file(self, fd: int) -> DeviceFile:
        """The device file behind a descriptor; EBADF if it is none of this Kvm's."""
        stat = os.fstat(fd)
        file = self._files.get((stat.st_dev, stat.st_ino))
        if file is None:
            raise KvmError(errno.EBADF, f"file descriptor {fd} was not opened through this Kvm")
        return file

    def vcpu_model(self, fd: int) -> Vcpu:
        """The modelled vCPU behind a vCPU's descriptor; UsageError for any other."""
        file = self.file(fd)
        if not isinstance(file, VcpuFile):
            raise UsageError(f"file descriptor {fd} is no vCPU's")
        return file.vcpu

    def close(self, fd: int | None = None) -> None:
        """Close one descriptor of this Kvm, or (None) release everything it holds."""
        if fd is not None:
            stat = os.fstat(fd)
            file = self._files.pop((stat.st_dev, stat.st_ino), None)
            if file is not None and not isinstance(file, SystemFile):
                file.release()
            os.close(fd)
            return
        for file in reversed(list(self._files.values())):
            file.release()
        self._files.clear()
        os.close(self.fd)

    def __enter__(self) -> Kvm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, file: DeviceFile, request: int, arg: int) -> int:
        pid = os.getpid()
        if pid != self._memory.pid:  # we are a fork's child: another address space
            self._memory = ProcessMemory(pid, pid)
        try:
            result = file.ioctl(request, arg, self._memory)
        except KvmError as error:
            if error.waits:
                signal.pause()
            raise
        return self._install(result) if isinstance(result, DeviceFile) else result

    def _install(self, file: DeviceFile) -> int:
        fd = os.dup(file.run_fd) if isinstance(file, VcpuFile) else os.memfd_create(f"kvm-{file.kind}")
        stat = os.fstat(fd)
        self._files[stat.st_dev, stat.st_ino] = file
        return fd

    @staticmethod
    def _address(arg: Any) -> int:
        if isinstance(arg, int):
            return arg & MAX_ARG
        if isinstance(arg, uapi.ffi.CData):
            return int(uapi.ffi.cast("uintptr_t", arg))
        try:
            return int(uapi.ffi.cast("uintptr_t", uapi.ffi.from_buffer(arg, require_writable=True)))
        except (TypeError, BufferError, ValueError) as error:
            raise UsageError(f"an ioctl takes a number, a cffi pointer or a writable buffer: {error}") from None


def open_kvm(*, host: str | Host = "sme-demo", kernel: str | Kernel | None = None, kept_events: int = KEPT) -> Kvm:
    """Open /dev/kvm of ``host`` under ``kernel``: names of built-in profiles, files, or loaded profiles.

    Without ``kernel`` it is the one that the host was recorded with. Raises UsageError naming the choices.
    """
    found = load_host(host) if isinstance(host, str) else host
    chosen = kernel if isinstance(kernel, Kernel) else load_kernel(kernel or found.kernel)
    return Kvm(found, chosen, kept_events=kept_events)
