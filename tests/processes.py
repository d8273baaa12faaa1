# SPDX-License-Identifier: MIT
"""Every process that a test starts ends with the test, or with the process that runs the tests.

A process can leave its parent, its session and its process group, but not its initial environment, proc(5): there the
tests put a mark that names this test run and the test. What carries a test's mark is killed after the test. A watcher
in a session of its own waits until the test run has ended, however that happens, and kills what carries its mark.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

VARIABLE = "KVMABI_TESTS"
POLL_SECONDS = 0.005
PATIENCE_SECONDS = 10.0
SETTLE_SECONDS = 0.05
"""A process that was about to exec when its starter was killed carries its mark by then."""
StartProcess = Callable[..., "subprocess.Popen[str]"]
WATCHER = (sys.executable, "-I", "-S", __file__)


def end_marked(mark: str) -> None:
    """Kill every other process whose environment has this mark, and their children, until none is left."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (pids := marked(mark)) and time.monotonic() < deadline:
        for pid in pids:
            _kill(pid, mark.encode())
        time.sleep(POLL_SECONDS)


def marked(mark: str) -> list[int]:
    """The other processes that run and whose environment has this mark."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and _has_mark(pid, mark.encode())]


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _kill(pid: int, mark: bytes) -> None:
    """Kill a process that has the mark; a pidfd makes sure that its number has not gone to another one."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if _has_mark(pid, mark):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


class Marks:
    """The marks of this test run. A run inside a test of another run carries that run's marks as well."""

    def __init__(self) -> None:
        self.run = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._outer = os.environ.get(VARIABLE, "")
        self._test = 0
        self._place()

    @property
    def test(self) -> str:
        """The mark of what the present test has started."""
        return f"{self.run}/{self._test};"

    def next_test(self) -> None:
        """From now on processes carry the mark of another test."""
        self._test += 1
        self._place()

    def _place(self) -> None:
        os.environ[VARIABLE] = self._outer + self.test

    def watch(self, folder: str = "") -> None:
        """Start the watcher of this process. It removes ``folder``, too, once the processes have ended."""
        unmarked = {name: value for name, value in os.environ.items() if name != VARIABLE}
        nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
        argv = [*WATCHER, str(os.getpid()), f"{self.run}/", folder]
        os.posix_spawn(sys.executable, argv, unmarked, file_actions=nowhere, setsid=True)


class Processes:
    """The processes of one test. `start` starts one as Popen does, in a session of its own; `end` ends all."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._started: list[subprocess.Popen[str]] = []

    @property
    def mark(self) -> str:
        """What the environment of each process of the test has."""
        return self._marks.test

    def start(self, *argv: object, **options: object) -> subprocess.Popen[str]:
        """Start a program; text in pipes is str."""
        options = {"start_new_session": True, "text": True} | options
        process = subprocess.Popen([str(word) for word in argv], **options)  # type: ignore[call-overload]
        self._started.append(process)
        return process

    def end(self) -> None:
        """Kill what the test has started, with all descendants, and close its pipes."""
        end_marked(self.mark)
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._started.clear()


def _watch(pid: int, mark: str, folder: str) -> None:
    """Wait until the process ``pid``, the parent of this one, has ended; then leave nothing of it."""
    pidfd = os.pidfd_open(pid)
    while os.getppid() == pid:
        select.select([pidfd], [], [])
    end_marked(mark)
    time.sleep(SETTLE_SECONDS)
    end_marked(mark)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    with contextlib.suppress(ProcessLookupError):
        _watch(int(sys.argv[1]), sys.argv[2], sys.argv[3])
