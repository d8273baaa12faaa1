# SPDX-License-Identifier: MIT
"""/dev/kvm in this process: ``Kvm.ioctl`` takes what ``fcntl.ioctl`` takes, on file descriptors that are real."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from kvmabi import uapi
from kvmabi.device import DeviceFile, ProcessMemory, VcpuFile, VmFile, open_system
from kvmabi.device.file import no_descriptor
from kvmabi.errors import KvmError, UsageError
from kvmabi.events import KEPT, EventLog
from kvmabi.model.vcpu import Vcpu
from kvmabi.objects import Vm
from kvmabi.order import Finding, OrderChecker
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.waiting import wait_for_signal

MAX_ARG = (1 << 64) - 1
SMALL_BYTES = 1024  # as fcntl.ioctl: shorter buffers are copied into one of this size
ARGUMENT_KINDS = "an ioctl takes a number, a cffi pointer, bytes or a buffer that can be written"
Identity = tuple[int, int]


class HasFileno(Protocol):
    """A file object."""

    def fileno(self) -> int:
        """The object's descriptor."""


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
        self._files: dict[Identity, DeviceFile] = {}
        self._fds: dict[Identity, int] = {}
        self._memory = ProcessMemory(os.getpid(), os.getpid())
        self.fd = self._install(open_system(host, kernel, self.log))

    def ioctl(self, fd: int | HasFileno, request: int, arg: Any = 0) -> int | bytes:
        """Do an ioctl on a file descriptor of this Kvm, or on a file object that has one.

        ``arg`` is a number (an address, or a value for ioctls that take one), a cffi pointer, a writable
        buffer, which is changed in place, or bytes: then the changed bytes are the result.
        Raises KvmError with the errno that the kernel gives, EBADF for a foreign descriptor.
        """
        file = self.file(fd)
        if isinstance(arg, int):
            if not -(1 << 63) <= arg <= MAX_ARG:
                raise UsageError(f"an ioctl's argument has 64 bits: {arg:#x} is too large")
            return self._do(file, request, arg & MAX_ARG)
        if isinstance(arg, uapi.ffi.CData):
            return self._do(file, request, _address(arg))
        try:
            view = memoryview(arg).cast("B")
        except TypeError as error:
            raise UsageError(f"{ARGUMENT_KINDS}: {error}") from None
        if isinstance(arg, bytes) or len(view) < SMALL_BYTES:
            return self._do_on_copy(file, request, arg, view)
        if view.readonly:
            raise UsageError(ARGUMENT_KINDS)
        return self._do(file, request, _address(uapi.ffi.from_buffer(view)))

    def create_vm(self, *, ipa_bits: int = 0) -> Vm:
        """KVM_CREATE_VM: a VM as an object; ``ipa_bits`` 0 is the kernel's default of 40."""
        return Vm(self, int(self.ioctl(self.fd, uapi.KVM_CREATE_VM, ipa_bits)))

    def findings(self) -> list[Finding]:
        """What the order checker found so far, judging every vCPU as if it were closed now."""
        self._checker.current.clear()
        for file in self._files.values():
            if isinstance(file, VcpuFile):
                file.tell_state("state")
        return [*self._checker.findings, *self._checker.current]

    def file(self, fd: int | HasFileno) -> DeviceFile:
        """The device file behind a descriptor; EBADF if it is none of this Kvm's."""
        file = self._files.get(_identity(fd))
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
        """Close one descriptor of this Kvm, or (None) all that it handed out. As in the kernel, a vCPU keeps its VM.

        A file is released with the descriptor that this Kvm handed out, whatever duplicates there are.
        """
        if fd is None:
            for known in reversed(list(self._files)):
                self._close(known)
            return
        self.file(fd)
        known = _identity(fd)
        if fd == self._fds[known]:
            self._close(known)
        else:
            os.close(fd)

    def _close(self, known: Identity) -> None:
        file, fd = self._files.pop(known), self._fds.pop(known)
        if isinstance(file, VcpuFile):
            file.release()
        vm = file.vm if isinstance(file, VcpuFile) else file
        if isinstance(vm, VmFile) and {vm, *vm.vcpus}.isdisjoint(self._files.values()):
            vm.release()
        with suppress(KvmError):  # whoever closed it by os.close may have another file under the same number
            if _identity(fd) == known:
                os.close(fd)

    def __enter__(self) -> Kvm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do_on_copy(self, file: DeviceFile, request: int, arg: Any, view: memoryview) -> int | bytes:
        """An ioctl on a copy with room to spare: what it reads or writes beyond a short buffer hits nobody."""
        if view.readonly and not isinstance(arg, bytes):
            raise UsageError(ARGUMENT_KINDS)
        copy = uapi.ffi.new("char[]", max(len(view), SMALL_BYTES))
        uapi.ffi.memmove(copy, view, len(view))
        result = self._do(file, request, _address(copy))
        changed = bytes(uapi.ffi.buffer(copy, len(view)))
        if isinstance(arg, bytes):
            return changed
        view[:] = changed
        return result

    def _do(self, file: DeviceFile, request: int, arg: int) -> int:
        pid = os.getpid()
        if pid != self._memory.pid:  # we are a fork's child: another address space
            self._memory = ProcessMemory(pid, pid)
        try:
            result = file.ioctl(request, arg, self._memory)
        except KvmError as error:
            if error.waits:
                wait_for_signal(file.sigmask if isinstance(file, VcpuFile) else None)
            raise
        if not isinstance(result, DeviceFile):
            return result
        fd = self._install(result)
        if result.fd_place is None:
            return fd
        self._memory.write(arg + result.fd_place, fd.to_bytes(4, "little"))
        return 0

    def _install(self, file: DeviceFile) -> int:
        try:
            fd = os.dup(file.run_fd) if isinstance(file, VcpuFile) else os.memfd_create(f"kvm-{file.kind}")
        except OSError as error:
            file.discard()
            raise no_descriptor(error) from None
        known = _identity(fd)
        self._files[known], self._fds[known] = file, fd
        return fd


def _address(arg: Any) -> int:
    """Where a cffi object is, or points to."""
    try:
        return int(uapi.ffi.cast("uintptr_t", arg))
    except TypeError as error:
        raise UsageError(f"{ARGUMENT_KINDS}: {error}") from None


def _identity(fd: int | HasFileno) -> Identity:
    """What stays of a descriptor through dup: the inode. EBADF if it is closed."""
    number = fd if isinstance(fd, int) else fd.fileno()
    try:
        stat = os.fstat(number)
    except (OSError, OverflowError):
        raise KvmError(errno.EBADF, f"file descriptor {number} is not open") from None
    return stat.st_dev, stat.st_ino


def open_kvm(*, host: str | Host = "sme-demo", kernel: str | Kernel | None = None, kept_events: int = KEPT) -> Kvm:
    """Open /dev/kvm of ``host`` under ``kernel``: names of built-in profiles, files, or loaded profiles.

    Without ``kernel`` it is the one that the host was recorded with. Raises UsageError naming the choices.
    """
    found = load_host(host)
    chosen = load_kernel(found.kernel if kernel is None else kernel)
    return Kvm(found, chosen, kept_events=kept_events)
