# SPDX-License-Identifier: MIT
"""What the kinds of KVM file have in common: an ioctl table, an answer and an event for every call."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from kvmabi import detail, regid
from kvmabi.detail import Detail, Opened
from kvmabi.device.lifetime import Kept
from kvmabi.device.memory import Memory
from kvmabi.device.watched import WatchedMemory, identity_of
from kvmabi.errors import ASKED_FOR, KvmError
from kvmabi.events import Event, EventLog, Kind
from kvmabi.faults import REGISTER_IOCTLS, Attempt, Faults, Rule
from kvmabi.model.effects import Effect
from kvmabi.model.refusal import Refusal

REQUEST_MASK = (1 << 32) - 1
MOST_CONTENTS_BYTES = 1 << 16
"""How much of a file that an ioctl opened is in the ioctl's details."""
REGISTER_ID_BYTES = 8


class Refused(NamedTuple):
    """The ioctl fails: why, and for the user the register's ID and the vCPU's mode, if there are any."""

    refusal: Refusal
    register: int | None
    mode: object

    @property
    def errno(self) -> int:
        """What the caller sees."""
        return self.refusal.errno

    def error(self) -> KvmError:
        """The refusal as an exception, with the register's name and the mode."""
        register = None if self.register is None else regid.name_of(self.register)
        why = self.refusal
        return KvmError(why.errno, why.reason, register=register, mode=self.mode, hint=why.hint, modelled=why.modelled)


class Wait(NamedTuple):
    """The ioctl fails like ``then``, but only once a signal has come to the calling thread.

    ``sigmask`` is the mask of KVM_SET_SIGNAL_MASK that holds while it waits, None for the thread's own. ``again_ms``:
    it is not decided yet; ``VcpuFile.resume`` says after that many milliseconds how it goes on (0: it is decided).
    """

    then: Refusal
    sigmask: bytes | None
    again_ms: int = 0

    @property
    def errno(self) -> int:
        """What the caller sees."""
        return self.then.errno

    def error(self) -> KvmError:
        """The refusal as an exception."""
        return self.then.error()


class Late(NamedTuple):
    """The ioctl is done, but its caller gets the ``answer`` only after ``seconds``."""

    answer: Done
    seconds: float


class PlainFile(NamedTuple):
    """The ioctl opened a file without KVM's ioctls: its descriptor, which what carries the answer passes on."""

    fd: int


class Call:
    """One ioctl under way: its argument, the caller's memory, and what its event reports.

    ``attribute`` is the kind of file, the group and the number of the attribute that it is about, ``argument`` the
    event's; ``unmodelled`` what a kernel does in it and kvmabi does not ("" for nothing), ``fault`` the rule that
    struck it.
    """

    __slots__ = ("arg", "argument", "attribute", "data", "effects", "fault", "memory", "register", "unmodelled")

    def __init__(self, arg: int, memory: Memory, register: int | None = None) -> None:
        self.arg = arg
        self.memory = memory
        self.register = register
        self.attribute: tuple[str, int, int] | None = None
        self.data: bytes | None = None
        self.effects: Iterable[Effect] = ()
        self.argument: int | None = None
        self.unmodelled = ""
        self.fault: Rule | None = None

    def read(self, addr: int, size: int) -> bytes:
        """``size`` bytes of the caller's memory. Raises KvmError, EFAULT."""
        data = self.memory.read(addr, size)
        if len(data) < size:
            raise fault(addr).error()
        return data

    def write(self, addr: int, data: bytes) -> None:
        """Write to the caller's memory. Raises KvmError, EFAULT, if not all of it could be written."""
        if self.memory.write(addr, data) < len(data):
            raise fault(addr).error()


def fault(addr: int) -> Refusal:
    """EFAULT for an address."""
    return Refusal(errno.EFAULT, f"the caller's memory at {addr:#x} cannot be accessed")


def no_descriptor(error: OSError) -> KvmError:
    """The error for running out of file descriptors, usually EMFILE."""
    return KvmError(error.errno or errno.EMFILE, "no file descriptor is left", hint="raise RLIMIT_NOFILE (ulimit -n)")


class DeviceFile(Kept):
    """A KVM file descriptor's other side. ``kind`` is "system", "vm", "vcpu" or "device".

    ``fd_place`` is where in the struct of the ioctl that opened it its number goes (None: the number is the result),
    ``unknown_errno`` what ioctls that this kind of file does not have fail with, ``unmodelled_groups`` the groups of
    attributes that a kernel has and kvmabi does not model. ``vm_number``, ``vcpu_number``
    and ``device_number`` are those that events report, ``damage`` what the next event reports as a WARNING. ``faults``
    strike ioctls.
    """

    kind: ClassVar[str]
    fd_place: ClassVar[int | None] = None
    unknown_errno: ClassVar[int] = errno.EINVAL
    unmodelled_groups: frozenset[int] = frozenset()
    table: ClassVar[Mapping[int, tuple[str, Handler]]]
    vm_number: int | None = None
    vcpu_number: int | None = None
    device_number: int | None = None
    damage: list[str] = []  # noqa: RUF012  # always empty here

    def __init__(self, log: EventLog, parent: DeviceFile | None = None, faults: Faults | None = None) -> None:
        super().__init__(parent)
        self.log = log
        self.faults: Faults | None = faults if parent is None else parent.faults

    def ioctl(self, request: int, arg: int, memory: Memory) -> Answer:
        """Answer an ioctl: a result >= 0, the file that it opened, why it fails, or what it waits for."""
        request &= REQUEST_MASK
        name, handler = self.table.get(request) or (f"ioctl {request:#x}", unknown)
        log = self.log
        before = None
        if log.watchers or log.kept:
            before = self.mode
            if log.detailed:
                memory = self._watched(request, arg, memory)
        call = Call(arg, memory)
        try:
            fault = None if self.faults is None else self.struck(self.faults, name, call)
            outcome = self.denies(memory) or fault or handler(self, call)
        except KvmError as error:
            outcome = Refusal(error.errno or errno.EIO, error.reason, error.hint, error.modelled)
        return self.done(name, call, before, outcome)

    def done(self, name: str, call: Call, before: object, outcome: Outcome) -> Answer:
        """Record the event of an ioctl that was begun in the mode ``before`` and is done; returns the answer to it.

        What the kernel would have done to itself is reported behind the ioctl that did it. One that is not decided yet
        has no event.
        """
        if type(outcome) is Wait and outcome.again_ms:
            return outcome
        log = self.log
        log.count += 1
        if log.watchers or log.kept:
            refusal = outcome if type(outcome) is Refusal else outcome.then if type(outcome) is Wait else None
            if call.unmodelled and refusal is None:
                refusal = Refusal(0, call.unmodelled, modelled=False)
            event = Event(
                log.count,
                Kind.IOCTL,
                name,
                self.vm_number,
                self.vcpu_number,
                before,
                self.svcr,
                refusal,
                call.register,
                call.data,
                call.effects,
                self,
                call.attribute,
                call.argument,
            )
            if type(call.memory) is WatchedMemory:
                event.detail = _finished(call.memory, outcome)
            log.append(event)
        while self.damage:
            self.report(Kind.WARNING, self.damage.pop(0))
        answer: Done = Refused(outcome, call.register, self.mode) if isinstance(outcome, Refusal) else outcome
        return Late(answer, call.fault.seconds) if call.fault is not None and call.fault.seconds else answer

    def struck(self, faults: Faults, name: str, call: Call) -> Refusal | None:
        """The failure that a fault makes of an ioctl that begins; one that delays only marks the call."""
        if call.register is None and name in REGISTER_IOCTLS:
            id = call.memory.read(call.arg, REGISTER_ID_BYTES)
            call.register = int.from_bytes(id, "little") if len(id) == REGISTER_ID_BYTES else None
        register = "" if call.register is None else regid.name_of(call.register)
        call.fault = faults.strike(Attempt(name, register, self.vm_number, self.vcpu_of(name, call)))
        if call.fault is None or not call.fault.errno:
            return None
        return Refusal(call.fault.errno, f"{ASKED_FOR}: {call.fault.text}")

    def vcpu_of(self, name: str, call: Call) -> int | None:
        """The vCPU that an ioctl which begins is about, None for no vCPU."""
        return self.vcpu_number

    def _watched(self, request: int, arg: int, memory: Memory) -> Memory:
        """The caller's memory during an ioctl that is recorded in detail."""
        size_bytes = detail.size_of_argument(request)
        before = memory.read(arg, size_bytes) if size_bytes else b""
        return WatchedMemory(memory, Detail(request, arg, self.kind, self.device_number, before))

    def report(self, kind: Kind, reason: str = "") -> None:
        """Record an event that is not an ioctl."""
        log = self.log
        if not log.idle:
            place = self.vm_number, self.vcpu_number
            why = Refusal(0, reason)
            log.append(Event(log.count, kind, kind.value, *place, self.mode, self.svcr, why, source=self))

    def denies(self, memory: Memory) -> Refusal | None:
        """Why a caller with this memory cannot use the file at all, if it cannot."""
        return None

    @property
    def mode(self) -> object:
        """The vCPU's mode, "" where there is no vCPU."""
        return ""

    @property
    def svcr(self) -> int:
        """SVCR's value now, 0 where there is none."""
        return 0

    def values(self) -> Mapping[int, bytes]:
        """Every visible register now, by ID."""
        return {}

    def pseudo_values(self) -> Mapping[int, bytes]:
        """The state of the vCPU that is not a register, by the IDs of events.PSEUDO_REGISTERS."""
        return {}

    def controllers(self) -> Mapping[tuple[int, int], bytes]:
        """Every register of the VM's interrupt controllers now, by group and number of its attribute."""
        return {}

    def state(self) -> dict[int, bytes]:
        """A new dict of both."""
        return {**self.values(), **self.pseudo_values()}

    def discard(self) -> None:
        """No descriptor could be handed out: undo what opened this file."""
        self.release()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of VM {self.vm_number}, vCPU {self.vcpu_number}>"


def _finished(memory: WatchedMemory, outcome: int | DeviceFile | PlainFile | Refusal | Wait) -> Detail:
    """The detail of an ioctl that is done."""
    found = memory.detail
    if found.size_bytes and found.request >> detail.DIRECTION_SHIFT & detail.READS:
        found.after = memory.peek(found.argument, found.size_bytes)
    if type(outcome) is int:
        found.result = outcome
    elif type(outcome) is PlainFile:
        contents = os.pread(outcome.fd, MOST_CONTENTS_BYTES, 0)
        found.opened = Opened("plain", -1, identity_of(outcome.fd), contents)
    elif isinstance(outcome, DeviceFile):
        place = {"vm": outcome.vm_number, "vcpu": outcome.vcpu_number, "device": outcome.device_number}
        found.opened = Opened(outcome.kind, place.get(outcome.kind) or 0)
    return found


Outcome = int | DeviceFile | PlainFile | Refusal | Wait
"""What a handler returns."""
Done = int | DeviceFile | PlainFile | Refused | Wait
"""What a caller gets."""
Answer = Done | Late
"""The same, and when."""
Handler = Callable[[Any, Call], Outcome]


class HasErrno(Protocol):
    """A file, as far as it refuses ioctls that it does not have."""

    unknown_errno: ClassVar[int]


def unknown(file: HasErrno, _call: Call) -> Refusal:
    """An ioctl that this kind of file does not have."""
    return Refusal(file.unknown_errno, "no arm64 kernel up to this one has this ioctl on this file")


def refused(size_bytes: int, file: DeviceFile, call: Call) -> Refusal:
    """An ioctl that an arm64 kernel refuses after it has read the struct of this size."""
    call.read(call.arg, size_bytes)
    return unknown(file, call)


def no_argument(call: Call) -> None:
    """EINVAL unless the ioctl's argument is 0."""
    if call.arg:
        raise KvmError(errno.EINVAL, "this ioctl takes no argument except 0")
