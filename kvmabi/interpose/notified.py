# SPDX-License-Identifier: MIT
"""Programs without the preloaded library: the kernel asks for their system calls, see seccomp_unotify(2).

A call that does not concern KVM goes on in the kernel (SECCOMP_USER_NOTIF_FLAG_CONTINUE). By then the program can have
changed the path that was looked at. That is harmless: the filter guards nothing. A program that does so opens what it
could open anyway, the machine's own /dev/kvm included.

A descriptor is put into the program by SECCOMP_IOCTL_NOTIF_ADDFD. An ioctl's descriptor is found by the identity of its
file, as with the preloaded library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from kvmabi.device import ProcessMemory
from kvmabi.device.file import Refused, Wait
from kvmabi.interpose import devkvm, processes, seccomp
from kvmabi.interpose.backtraces import Backtraces, Trace
from kvmabi.interpose.files import OpenFiles
from kvmabi.interpose.protocol import IDENTITY
from kvmabi.interpose.session import Answer, Delayed, Done, NewFd, NotOurs
from kvmabi.interpose.threads import Ended, Process, Threads
from kvmabi.interpose.unotify import (
    ADDFD,
    ADDFD_SEND,
    CONTINUE,
    ID_VALID,
    NEW_DESCRIPTOR,
    NOTIFICATION,
    RECV,
    RESPONSE,
    SEND,
    SET_FLAGS,
    SYNC_WAKE_UP,
    leave_to_the_kernel,
)

AT_FDCWD = -100
PATH_BYTES, SHORT_PATH_BYTES = 4096, 256
ZEROES = bytes(NOTIFICATION.size)
PAUSE_SECONDS = 0.002
"""How often the signals of threads in KVM_RUN are looked at; longer where many wait."""


class Call(NamedTuple):
    """A system call that waits for its answer."""

    id: int
    thread: int
    number: int
    address: int
    arguments: list[int]


class Waiting(NamedTuple):
    """A KVM_RUN that waits, on the vCPU of this identity."""

    call: Call
    wait: Wait
    process: Process
    identity: bytes


class LateCall(NamedTuple):
    """A call that is done, and whose answer is ``due`` on the monotonic clock."""

    due: float
    call: Call
    process: Process
    answer: Done
    identity: bytes
    argument: int
    flags: int


class Notified:
    """The processes under a filter, whose calls come from ``listener``.

    ``watch`` has an object served when a descriptor is readable; ``complain`` is called with errors of kvmabi.
    """

    def __init__(
        self,
        listener: int,
        files: OpenFiles,
        traces: Backtraces,
        watch: Callable[[int, Ended], None],
        complain: Callable[[Exception], None],
    ) -> None:
        self._listener, self._files, self._traces, self._complain = listener, files, traces, complain
        self._machine = seccomp.calls()
        self._room = bytearray(NOTIFICATION.size)
        self._threads = Threads(files, traces, watch, complain)
        (self._ioctl_number,) = (number for number, name in self._machine.names.items() if name == "ioctl")
        self._waiting: dict[int, Waiting] = {}
        self._late: list[LateCall] = []
        self._paths = ProcessMemory(0, None)
        self._next_look = 0.0
        with contextlib.suppress(OSError):
            fcntl.ioctl(listener, SET_FLAGS, SYNC_WAKE_UP)

    def close(self) -> None:
        """Close all. Without a listener calls fail with ENOSYS, so a child of its own is left to what remains."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        if not any(events & select.POLLHUP for _fd, events in poll.poll(0)):
            leave_to_the_kernel(self._listener)
        os.close(self._listener)
        for one in self._late:
            if isinstance(one.answer, NewFd):
                os.close(one.answer.fd)
        self._late.clear()
        self._threads.close()

    def serve(self) -> None:
        """Answer one call."""
        self._room[:] = ZEROES
        try:
            fcntl.ioctl(self._listener, RECV, self._room, True)
        except OSError:  # the thread was killed, or a signal has ended its call
            return
        id, thread, _flags, number, _arch, address, *arguments = NOTIFICATION.unpack(self._room)
        call = Call(id, thread, number, address, arguments)
        try:
            answer = self._answer(call) if thread else None
        except Exception as error:
            self._complain(error)
            answer = -errno.EIO
        if isinstance(answer, int):
            self._send(call, answer)
        elif answer is None:
            self._send(call, 0, CONTINUE)

    @property
    def waits(self) -> bool:
        """Whether a thread is in KVM_RUN or gets its answer late, so that `look` is due now and then."""
        return bool(self._waiting or self._late)

    def pause(self) -> float | None:
        """How long to sleep at most, in seconds, until `look` is due; None if no thread waits."""
        dues = [one.due for one in self._late] + ([self._next_look] if self._waiting else [])
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def look(self) -> None:
        """Give the late answers that are due, end the KVM_RUN of threads that have a signal, and let guests go on.

        A process's signal ends one thread's.
        """
        now = time.monotonic()
        for one in [one for one in self._late if one.due <= now]:
            self._late.remove(one)
            result = self._result(one.call, one.process, one.answer, one.identity, one.argument, one.flags)
            if isinstance(result, int):
                self._send(one.call, result)
        if not self._waiting or now < self._next_look:
            return
        self._next_look = now + max(PAUSE_SECONDS, len(self._waiting) * PAUSE_SECONDS / 4)
        taken: set[int] = set()
        for waiting in sorted(self._waiting.values(), key=lambda one: one.call.thread):
            call, wait = waiting.call, waiting.wait
            thread = self._threads.known(call.thread)
            own, shared = processes.pending_signals(call.thread, wait.sigmask)
            if own or (shared and thread is not None and thread.process.pid not in taken):
                if not own and thread is not None:
                    taken.add(thread.process.pid)
                del self._waiting[call.id]
                if wait.again_ms:
                    self._resume(waiting, interrupted=True)
                self._send(call, -wait.then.errno)
            elif not self._is_valid(call):
                del self._waiting[call.id]
            elif wait.again_ms:
                answer = self._resume(waiting, interrupted=False)
                if isinstance(answer, Wait):
                    self._waiting[call.id] = waiting._replace(wait=answer)
                    continue
                del self._waiting[call.id]
                result = self._result(call, waiting.process, answer, waiting.identity, 0, 0)
                if isinstance(result, int):
                    self._send(call, result)

    def _answer(self, call: Call) -> int | tuple[()] | None:
        """The result of a call, negative for an errno; None: the kernel goes on; (): answered already, or it waits."""
        if call.number == self._ioctl_number:
            return self._ioctl(call)
        row = PATH_CALLS.get(self._machine.names.get(call.number, ""))
        if row is None or not self._is_dev_kvm(call, row):
            return None
        return row.answer(self, call, call.arguments[row.path + 1 :])

    def _ioctl(self, call: Call) -> int | tuple[()] | None:
        fd, request, argument = call.arguments[:3]
        thread = self._threads.known(call.thread)
        try:
            if thread is None:
                raise FileNotFoundError
            status = os.stat(str(fd & 0xFFFFFFFF), dir_fd=thread.fds)
        except OSError:  # not seen before, its number is another thread's, or EBADF
            thread = self._threads.seen(call.thread)
            if thread is None:
                return None
            try:
                status = os.stat(str(fd & 0xFFFFFFFF), dir_fd=thread.fds)
            except OSError:
                return None
        process = thread.process
        if self._files.others_share(process.session):
            self._files.backlog.collect()
        identity = IDENTITY.pack(status.st_dev, status.st_ino)
        answer = process.session.ioctl(identity, request & 0xFFFFFFFF, argument)
        self._fill_asked(call, process)
        return self._result(call, process, answer, identity, argument, os.O_CLOEXEC)

    def _fill_asked(self, call: Call, process: Process) -> None:
        if self._traces.log.asked:
            process.callers.fill(self._traces.log.take_asked(), Trace(call.thread, (call.address - 1,)))

    def _resume(self, waiting: Waiting, *, interrupted: bool) -> Answer:
        answer = waiting.process.session.resume(waiting.identity, interrupted=interrupted)
        self._fill_asked(waiting.call, waiting.process)
        return answer

    def _result(
        self, call: Call, process: Process, answer: Answer, identity: bytes, argument: int, flags: int
    ) -> int | tuple[()] | None:
        if isinstance(answer, int):
            return answer
        if isinstance(answer, Delayed):
            due = time.monotonic() + answer.seconds
            self._late.append(LateCall(due, call, process, answer.answer, identity, argument, flags))
            return ()
        if isinstance(answer, Refused):
            return -answer.errno
        if isinstance(answer, NewFd):
            return self._hand_out(call, process, answer, argument, flags)
        if isinstance(answer, NotOurs):
            return None
        if not self._waiting:
            self._next_look = 0.0
        self._waiting[call.id] = Waiting(call, answer, process, identity)
        return ()

    def _hand_out(self, call: Call, process: Process, answer: NewFd, argument: int, flags: int) -> int | tuple[()]:
        """Put a descriptor into the program, as the result or into the ioctl's struct."""
        how = ADDFD_SEND if answer.place is None else 0
        try:
            wanted = bytearray(NEW_DESCRIPTOR.pack(call.id, how, answer.fd, 0, flags & os.O_CLOEXEC))
            number = fcntl.ioctl(self._listener, ADDFD, wanted)  # of bytes it would return the bytes
        except OSError as error:
            process.session.undo(answer)
            return -(error.errno or errno.EMFILE)
        finally:
            os.close(answer.fd)
        if answer.place is None:
            return ()
        process.memory.write(argument + answer.place, struct.pack("=i", number))
        return 0

    def _open(self, call: Call, rest: list[int]) -> int | tuple[()] | None:
        flags = rest[0] if rest else 0
        name = self._machine.names[call.number]
        if name == "creat":
            flags = os.O_CREAT
        elif name == "openat2":
            self._paths.pid = call.thread
            flags = int.from_bytes(self._paths.read(rest[0], 8), "little")
        if flags & os.O_PATH:
            return None
        error = devkvm.opening_error(flags)
        thread = self._threads.seen(call.thread)
        if error or thread is None:
            return -error if error else None
        return self._result(call, thread.process, thread.process.session.open(), b"", 0, flags)

    def _stat(self, call: Call, rest: list[int]) -> int:
        content, place = devkvm.stat_bytes(), 0
        if self._machine.names[call.number] == "statx":
            content, place = devkvm.statx_bytes(), 2
        self._paths.pid = call.thread
        return 0 if self._paths.write(rest[place], content) == len(content) else -errno.EFAULT

    def _access(self, _call: Call, rest: list[int]) -> int:
        return -devkvm.access_error(rest[0] & 0xFFFFFFFF)

    def _is_dev_kvm(self, call: Call, row: PathCall) -> bool:
        """Whether the call's path is /dev/kvm. Its last characters rule out nearly every other path."""
        self._paths.pid = call.thread
        address = call.arguments[row.path]
        path, end, _rest = self._paths.read(address, SHORT_PATH_BYTES).partition(b"\0")
        if not end:
            path, end, _rest = self._paths.read(address, PATH_BYTES).partition(b"\0")
        if not end or not (path == b"kvm" or path.endswith(b"/kvm")) or not self._is_valid(call):
            return False
        folder = "/"
        if not path.startswith(b"/"):
            dirfd = AT_FDCWD if row.path == 0 else ctypes.c_int(call.arguments[0] & 0xFFFFFFFF).value
            place = "cwd" if dirfd == AT_FDCWD else f"fd/{dirfd}"
            try:
                folder = os.readlink(f"/proc/{call.thread}/{place}")
            except OSError:
                return False
        return devkvm.is_path(folder, os.fsdecode(path))

    def _is_valid(self, call: Call) -> bool:
        """Whether the thread still waits in this call, so that what was found by its number is its own."""
        try:
            fcntl.ioctl(self._listener, ID_VALID, struct.pack("=Q", call.id))
        except OSError:
            return False
        return True

    def _send(self, call: Call, result: int, flags: int = 0) -> None:
        response = RESPONSE.pack(call.id, max(result, 0), min(result, 0), flags)
        try:
            fcntl.ioctl(self._listener, SEND, response)
        except OSError:  # the thread was killed, or a signal has ended its call
            return


class PathCall(NamedTuple):
    """A call that takes a path: which argument it is, and what answers it where the path is /dev/kvm."""

    path: int
    answer: Callable[[Notified, Call, list[int]], int | tuple[()] | None]


PATH_CALLS = {
    "open": PathCall(0, Notified._open),
    "creat": PathCall(0, Notified._open),
    "openat": PathCall(1, Notified._open),
    "openat2": PathCall(1, Notified._open),
    "stat": PathCall(0, Notified._stat),
    "lstat": PathCall(0, Notified._stat),
    "newfstatat": PathCall(1, Notified._stat),
    "statx": PathCall(1, Notified._stat),
    "access": PathCall(0, Notified._access),
    "faccessat": PathCall(1, Notified._access),
    "faccessat2": PathCall(1, Notified._access),
}
