# SPDX-License-Identifier: MIT
"""A client under ``kvmabi run``: how it ended, what it printed, and kvmabi's report and log.

Most clients wait at some point in KVM_RUN for guest code, which does not run. Such a run is ended: as soon as no
process of it does anything, or if it has made no ioctl for a while. kvmabi's log then shows whether a vCPU was running.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Self

QUIET_SECONDS = 0.7
"""How long all processes of a run sleep, with no ioctl, before it is ended."""
SILENT_CPU_SECONDS = 3.0
"""How much a run computes with no ioctl before it is ended: some wait actively for their guests."""
SILENT_SECONDS = 20.0
"""How long a run makes no ioctl, whatever it does, before it is ended."""
LONGEST_SECONDS = 90.0
LOOK_SECONDS = 0.02
DYING_SECONDS = 5.0
IN_GUEST = "KVM_RUN: EINTR: "
STATE, SESSION, USER_TIME, SYSTEM_TIME = 0, 3, 11, 12
"""Fields of /proc/PID/stat behind the program's name: proc(5)."""
ASLEEP = "SZX"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class End(Enum):
    """Who ended a run."""

    ITSELF = "itself"
    QUIET = "quiet"
    SILENT = "silent"
    LONG = "long"


class Result(NamedTuple):
    """How a run ended: ``status`` is that of ``kvmabi run``; ``report`` is empty if there is none."""

    status: int
    end: End
    output: str
    report: dict[str, Any]
    log: list[str]

    @property
    def in_guest(self) -> bool:
        """Whether the run was ended while a vCPU was in KVM_RUN."""
        return self.end is not End.ITSELF and any(IN_GUEST in line for line in self.log[-100:])


class Run:
    """A program under ``kvmabi run``; the files of the run are in ``folder``, which is also where it runs.

    Leaving the context ends it, its program first, so that there is a report.
    """

    def __init__(
        self,
        program: Sequence[str | Path],
        folder: Path,
        *,
        kernel: str,
        host: str,
        options: Sequence[str | Path] = ("--saves", "none"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.log = folder, folder / "log"
        self._report, self._output = folder / "report.json", folder / "output"
        written = ["--format", "json", "--output", self._report, "--log", self.log]
        profile = ["--kernel", kernel, "--host", host]
        arguments = [*profile, *written, *options, "--", *program]
        with self._output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kvmabi", "run", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def result(self, end: End = End.ITSELF) -> Result:
        """How it ended: the run is over."""
        return Result(
            self.process.returncode,
            end,
            self._output.read_text("utf-8", "replace"),
            json.loads(self._report.read_text("utf-8")) if self._report.exists() else {},
            self.log.read_text("utf-8").splitlines() if self.log.exists() else [],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _finish(self.process)


def run(
    program: Sequence[str | Path],
    folder: Path,
    *,
    kernel: str,
    host: str,
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Run a program until it ends, or waits for guest code. ``environment`` is added to this process's."""
    with Run(program, folder, kernel=kernel, host=host, environment=environment) as started:
        end = _wait(started.process, started.log)
    return started.result(end)


def _wait(process: subprocess.Popen[bytes], log: Path) -> End:
    """Wait until a run has ended, or is to be ended."""
    start = acted = spoke = time.monotonic()
    size, ticks, asleep, spent = -1, 0, False, 0
    while process.poll() is None:
        now, (now_asleep, now_ticks) = time.monotonic(), _activity(process.pid)
        now_size = log.stat().st_size if log.exists() else 0
        if now_size != size:
            spoke, spent = now, now_ticks
        if now_size != size or (now_asleep, now_ticks) != (asleep, ticks) or not now_asleep:
            acted = now
        size, asleep, ticks = now_size, now_asleep, now_ticks
        if now - acted > QUIET_SECONDS:
            return End.QUIET
        if ticks - spent > SILENT_CPU_SECONDS * TICKS_PER_SECOND or now - spoke > SILENT_SECONDS:
            return End.SILENT
        if now - start > LONGEST_SECONDS:
            return End.LONG
        time.sleep(LOOK_SECONDS)
    return End.ITSELF


def _activity(session: int) -> tuple[bool, int]:
    """Whether all threads of a session are asleep, and the processor time so far of those that live, in ticks."""
    asleep, total = True, 0
    for stat in _stats(session):
        asleep &= stat[STATE] in ASLEEP
        total += int(stat[USER_TIME]) + int(stat[SYSTEM_TIME])
    return asleep, total


def _stats(session: int) -> Iterator[list[str]]:
    """The fields of /proc/PID/task/TID/stat, from the state on, of every thread of a session."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and int(_fields(entry / "stat")[SESSION]) == session:
                yield from (_fields(thread / "stat") for thread in (entry / "task").iterdir())


def _fields(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").rpartition(")")[2].split()


def _finish(process: subprocess.Popen[bytes]) -> None:
    """End a run, its program first, so that the report is written."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DYING_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
