# SPDX-License-Identifier: MIT
"""The processes and threads under a filter that use KVM, as /proc shows them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from kvmabi.device import ProcessMemory
from kvmabi.interpose import processes
from kvmabi.interpose.backtraces import Backtraces, Callers
from kvmabi.interpose.clients import Disconnect
from kvmabi.interpose.files import OpenFiles
from kvmabi.interpose.session import Session

MOST_THREADS = 1024
"""How many threads are remembered."""


class Process:
    """A process that uses KVM: its ``session``, its pid, and the start of its stack, which exec changes."""

    def __init__(self, pid: int, session: Session, callers: Callers) -> None:
        self.pid, self.session, self.callers = pid, session, callers
        self.memory = ProcessMemory(pid, None)
        self.stack = processes.start_of_stack(pid)


class Thread(NamedTuple):
    """A thread that uses KVM, and its /proc/PID/task/TID/fd: a later thread with its number is not found there."""

    process: Process
    fds: int


class Ended:
    """Waits for the end of a process; served by the server like a client."""

    def __init__(self, fd: int, forget: Callable[[], None]) -> None:
        self._fd, self._forget = fd, forget

    def serve(self) -> None:
        """The process has ended."""
        raise Disconnect

    def close(self) -> None:
        """Forget the process."""
        self._forget()
        os.close(self._fd)


class Threads:
    """The threads that were seen, and their processes, each with the session of its address space.

    ``watch`` has an object served when a descriptor is readable; ``complain`` is called with errors of kvmabi.
    """

    def __init__(
        self,
        files: OpenFiles,
        traces: Backtraces,
        watch: Callable[[int, Ended], None],
        complain: Callable[[Exception], None],
    ) -> None:
        self._files, self._traces, self._watch, self._complain = files, traces, watch, complain
        self._processes: dict[int, Process] = {}
        self._threads: dict[int, Thread] = {}

    def known(self, number: int) -> Thread | None:
        """A thread that was seen before, by its number."""
        return self._threads.get(number)

    def seen(self, number: int) -> Thread | None:
        """A thread that is seen for the first time, or opens /dev/kvm; None if it has ended."""
        before = self._threads.pop(number, None)
        if before is not None:
            os.close(before.fds)
        status = processes.status(number)
        if "Tgid" not in status:
            return None
        pid = int(status["Tgid"])
        process = self._processes.get(pid)
        if process is not None and process.stack != processes.start_of_stack(pid):  # exec: another address space
            self._forget(process)
            process = None
        try:
            if process is None:
                process = self._processes[pid] = self._new_process(pid, int(status["PPid"]))
            thread = Thread(process, os.open(f"/proc/{pid}/task/{number}/fd", os.O_RDONLY | os.O_DIRECTORY))
        except OSError:
            return None
        if len(self._threads) >= MOST_THREADS:
            self._close_threads(self._threads.copy())
        self._threads[number] = thread
        return thread

    def close(self) -> None:
        """Forget all threads."""
        self._close_threads(self._threads.copy())

    def _new_process(self, pid: int, parent: int) -> Process:
        """A process, with its parent's session if it shares its memory, as after vfork. Errors: OSError."""
        ended = os.pidfd_open(pid)
        other = self._processes.get(parent)
        session = Session(pid, os.urandom(16), self._files, self._complain)
        if other is not None and processes.share_memory(pid, parent):
            session = other.session
        process = Process(pid, session, Callers(pid, self._traces))
        self._watch(ended, Ended(ended, lambda: self._forget(process)))
        return process

    def _forget(self, process: Process) -> None:
        if self._processes.get(process.pid) is process:
            del self._processes[process.pid]
        self._close_threads({number: one for number, one in self._threads.items() if one.process is process})
        if all(other.session is not process.session for other in self._processes.values()):
            process.session.closed = True

    def _close_threads(self, threads: dict[int, Thread]) -> None:
        for number, thread in threads.items():
            del self._threads[number]
            os.close(thread.fds)
