# SPDX-License-Identifier: MIT
"""The calls of one address space on /dev/kvm, and their answers as values, which a transport encodes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from kvmabi import uapi
from kvmabi.device import DeviceFile, ProcessMemory, VcpuFile
from kvmabi.device.file import Answer as AnswerOfDevice
from kvmabi.device.file import Done as DoneOfDevice
from kvmabi.device.file import Late, PlainFile, Refused, Wait
from kvmabi.faults import REGISTER_IOCTLS
from kvmabi.interpose.backtraces import Callers
from kvmabi.interpose.files import OpenFile, OpenFiles
from kvmabi.interpose.protocol import REAL, Message
from kvmabi.interpose.real import RealKernel
from kvmabi.model.refusal import Refusal


class NewFd(NamedTuple):
    """A file was opened: its descriptor in this process, to be closed once it is sent.

    The client stores its own descriptor at offset ``place`` of the ioctl's struct; None: returns it as the result.
    ``opened`` are the file and the one that it was opened on, None for a file that needs no undoing.
    """

    fd: int
    place: int | None
    opened: tuple[DeviceFile, OpenFile] | None = None


class Delayed(NamedTuple):
    """The client gets the ``answer`` only after ``seconds``."""

    answer: Done
    seconds: float


class NotOurs(NamedTuple):
    """The descriptor does not belong to this server: the kernel handles the call."""


NOT_OURS = NotOurs()
Done = int | Refused | Wait | NewFd | NotOurs
Answer = Done | Delayed


class Session:
    """The calls of one address space, known by ``cookie`` and reached through the memory of process ``pid``.

    ``complain`` is called with internal errors of kvmabi, which the client sees as EIO.
    """

    def __init__(self, pid: int, cookie: bytes, files: OpenFiles, complain: Callable[[Exception], None]) -> None:
        self.closed = False
        self._memory = ProcessMemory(pid, cookie)
        self._files = files
        self._complain = complain
        self._last: NewFd | None = None

    def reads(self, content: bytes, address: int) -> bool:
        """Whether this process finds ``content``, which the client has there, at ``address`` in the client's memory.

        It does not where addresses differ between the program and its process, as with a guest base of qemu-user.
        """
        return self._memory.read(address, len(content)) == content

    def report_real(self, kernel: RealKernel, message: Message, identity: bytes, request: int, argument: int) -> int:
        """An ioctl on the machine's own /dev/kvm, before and after the kernel does it."""
        what, thread = REAL.unpack(identity)
        if message == Message.BEFORE:
            kernel.before(self._memory, what, thread, request, argument)
        else:
            kernel.after(self._memory, what, thread)
        return 0

    def open(self) -> Answer:
        """open("/dev/kvm")."""
        try:
            return NewFd(self._files.open_system(self), None)
        except OSError as error:
            return _failure(error)

    def ioctl(self, identity: bytes, request: int, argument: int) -> Answer:
        """An ioctl on the descriptor whose file has this identity."""
        self._last = None
        file = self._files.find(identity)
        if file is None:
            return NOT_OURS
        device, backlog = file.device, self._files.backlog

        def call() -> AnswerOfDevice:
            if backlog:
                return backlog.run(self._files.shares.of(device), device, request, argument, self._memory)
            return device.ioctl(request, argument, self._memory)

        return self._done(file, request, call)

    def resume(self, identity: bytes, *, interrupted: bool) -> Answer:
        """A KVM_RUN that waits goes on; ``interrupted``: a signal came."""
        self._last = None
        file = self._files.find(identity)
        if file is None or not isinstance(file.device, VcpuFile):
            return NOT_OURS
        device = file.device
        refusal = device.denies(self._memory)
        if refusal is not None:
            return Refused(refusal, None, "")
        self._files.backlog.record_all()
        return self._done(file, uapi.KVM_RUN, lambda: device.resume(interrupted=interrupted))

    def _done(self, file: OpenFile, request: int, call: Callable[[], AnswerOfDevice]) -> Answer:
        """The answer to a ``call`` of an ioctl, as the client gets it."""
        try:
            answer = call()
        except Exception as error:
            self._complain(error)
            return Refused(Refusal(errno.EIO, "an error of kvmabi"), None, "")
        if self._files.shares:
            self._files.shares.update(file.device, request)
        if isinstance(answer, Late):
            return Delayed(self._handed_out(answer.answer, file), answer.seconds)
        return self._handed_out(answer, file)

    def share(self, identity: bytes, callers: Callers) -> Answer:
        """The file of a vCPU of this address space, which the client maps."""
        device = self._own_vcpu(identity)
        self._files.backlog.record_all()
        try:
            return NOT_OURS if device is None else NewFd(self._files.shares.open(device, self, callers), None)
        except OSError as error:
            return _failure(error)

    def rows(self, identity: bytes) -> Answer:
        """The rows of a shared vCPU's register map."""
        device = self._own_vcpu(identity)
        try:
            fd = None if device is None else self._files.shares.rows(device)
        except OSError as error:
            return _failure(error)
        return NOT_OURS if fd is None else NewFd(fd, None)

    def _own_vcpu(self, identity: bytes) -> VcpuFile | None:
        file = self._files.find(identity)
        device = None if file is None else file.device
        if not isinstance(device, VcpuFile) or device.has_dirty_ring:
            return None
        if device.faults is not None and device.faults.about(REGISTER_IOCTLS):
            return None  # every access comes to be struck here
        return device if device.denies(self._memory) is None else None

    def undo(self, answer: NewFd | None = None) -> int:
        """The client could not install the descriptor of ``answer``, by default the last that it was sent."""
        undone, self._last = answer or self._last, None
        if undone is not None and undone.opened is not None:
            self._files.undo(*undone.opened)
        return 0

    def _handed_out(self, answer: DoneOfDevice, parent: OpenFile) -> Done:
        """The answer of an ioctl on ``parent``, with a descriptor for what it opened."""
        if isinstance(answer, PlainFile):
            return NewFd(answer.fd, None)
        if not isinstance(answer, DeviceFile):
            return answer
        try:
            fd = self._files.add(answer, parent, self)
        except OSError as error:
            answer.discard()
            return _failure(error)
        self._last = NewFd(fd, answer.fd_place, (answer, parent))
        return self._last


def _failure(error: OSError) -> Refused:
    return Refused(Refusal(error.errno or errno.EIO, str(error.strerror)), None, "")
