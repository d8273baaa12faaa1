# SPDX-License-Identifier: MIT
"""What the kinds of KVM file have in common: an ioctl table, and an event for every call."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from kvmabi.device.memory import Memory
from kvmabi.errors import KvmError
from kvmabi.events import Event, EventLog, Lost

REQUEST_MASK = (1 << 32) - 1
NOBODY_ASKS = "", None, None
"""What DeviceFile.where need not tell when no event will be made."""


class Call:
    """One ioctl under way: its argument, the caller's memory, and what its event will tell."""

    register: int | None = None
    data: bytes | None = None
    effects: Sequence[Lost] = ()
    state: Mapping[int, bytes] | None = None

    def __init__(self, arg: int, memory: Memory) -> None:
        self.arg = arg
        self.memory = memory

    def read(self, addr: int, size: int) -> bytes:
        """``size`` bytes of the caller's memory, or EFAULT."""
        data = self.memory.read(addr, size)
        if len(data) < size:
            raise fault(addr)
        return data

    def write(self, addr: int, data: bytes) -> None:
        """Write to the caller's memory; EFAULT if not all of it could be written."""
        if self.memory.write(addr, data) < len(data):
            raise fault(addr)


def fault(addr: int) -> KvmError:
    """EFAULT for an address."""
    return KvmError(errno.EFAULT, f"the caller's memory at {addr:#x} cannot be accessed")


def no_descriptor(error: OSError) -> KvmError:
    """What stopped this process from opening one more file: EMFILE as a rule."""
    return KvmError(error.errno or errno.EMFILE, "no file descriptor is left", remedy="raise RLIMIT_NOFILE (ulimit -n)")


Handler = Callable[[Any, Call], "int | DeviceFile"]


class DeviceFile:
    """A KVM file descriptor's other side. ``kind`` is "system", "vm", "vcpu" or "device".

    ``fd_place`` is where in the struct of the ioctl that opened it its number goes (None: the number is the result),
    ``unknown_errno`` what ioctls that this kind of file does not have answer.
    """

    kind: ClassVar[str]
    fd_place: ClassVar[int | None] = None
    unknown_errno: ClassVar[int] = errno.EINVAL
    table: ClassVar[Mapping[int, tuple[str, Handler]]]

    def __init__(self, log: EventLog) -> None:
        self.log = log

    def ioctl(self, request: int, arg: int, memory: Memory) -> int | DeviceFile:
        """Answer an ioctl: a result >= 0, or the file that it opened.

        Raises KvmError with the errno for the caller; one with ``waits`` set (KVM_RUN) is to be
        answered once a signal arrived.
        """
        name, handler = self.table.get(request & REQUEST_MASK) or (f"ioctl {request & REQUEST_MASK:#x}", unknown)
        call = Call(arg, memory)
        mode, vm, vcpu = NOBODY_ASKS if self.log.idle else self.where()
        try:
            self.check(memory)
            result = handler(self, call)
        except KvmError as error:
            self._log(name, call, error, mode, vm, vcpu)
            raise
        self._log(name, call, None, mode, vm, vcpu)
        return result

    def check(self, memory: Memory) -> None:
        """Refuse callers that may not use this file at all."""

    def where(self) -> tuple[Any, int | None, int | None]:
        """The mode, VM number and vCPU number that an event tells."""
        return "", None, None

    def svcr(self) -> int:
        """SVCR's value now, 0 where there is none."""
        return 0

    def release(self) -> None:
        """The last descriptor of this file was closed."""

    def discard(self) -> None:
        """No descriptor could be handed out: undo what opened this file."""
        self.release()

    def _log(self, name: str, call: Call, error: KvmError | None, mode: Any, vm: int | None, vcpu: int | None) -> None:
        log = self.log
        log.count += 1
        if log.idle:
            return
        log.append(
            Event(
                log.count,
                vm,
                vcpu,
                name,
                call.register,
                call.data,
                (error.errno or 0) if error else 0,
                error.reason if error else "",
                error.remedy if error else "",
                mode,
                self.svcr(),
                call.effects,
                call.state,
            )
        )


def unknown(file: DeviceFile, _call: Call) -> int:
    """An ioctl that this kind of file does not have."""
    raise KvmError(file.unknown_errno, "this file has no such ioctl, or kvmabi does not emulate it")


def no_argument(call: Call) -> None:
    """EINVAL unless the ioctl's argument is 0."""
    if call.arg:
        raise KvmError(errno.EINVAL, "this ioctl takes no argument but 0")
