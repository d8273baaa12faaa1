# SPDX-License-Identifier: MIT
"""What is measured: each side is a function that returns µs by name, or raises UsageError with what it lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import fastpath
import replay
import side_by_side
from golden import packs

from bench import rows
from bench.table import Figures, Measured
from kvmabi.errors import UsageError
from kvmabi.interpose import qemuuser
from kvmabi.steps.trace import Trace
from kvmabi.steps.vm.compiler import compiler as arm64_compiler

STARTS = 5
"""Of ``kvmabi run`` in each round."""
REPLAYS = 3
TRACE = "mainline.7.3-nosve.random.trace"
ERROR = re.compile(r"error: |ld: cannot find")
Side = Callable[[], Figures]


def microseconds(nanoseconds: Figures) -> dict[str, float]:
    """What fastpath.c prints, in µs."""
    return {name: value / 1e3 for name, value in nanoseconds.items()}


def program(build: Callable[[], Path], host: Path, way: str) -> Figures:
    """The figures of fastpath.c, compiled by ``build``, under ``kvmabi run``."""
    with explained():
        return microseconds(fastpath.figures(build(), host, way))


@contextmanager
def explained() -> Iterator[None]:
    """A command that fails, or is not there, is a UsageError of one line."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        raise UsageError(reason(error)) from None
    except FileNotFoundError as error:
        raise UsageError(f"there is no {error.filename}") from None


def reason(error: subprocess.CalledProcessError) -> str:
    """Why a command failed, in one line: its first line with an error, else its last one."""
    complaints = [line for line in (error.stderr or "").splitlines() if line.strip()]
    first = next((line for line in complaints if ERROR.search(line)), None)
    return first or (complaints[-1] if complaints else f"{error.cmd[0]} ended with {error.returncode}")


def native(folder: Path) -> Path:
    """The program of this machine."""
    return fastpath.compiled(folder)


def arm64(folder: Path) -> Path:
    """The arm64 program; UsageError without qemu-user, its libraries or a compiler."""
    qemuuser.find(None)
    return fastpath.compiled(folder, arm64_compiler())


def static(folder: Path) -> Path:
    """The static program of this machine."""
    return fastpath.compiled(folder, ("cc",), "-static")


def objects() -> Figures:
    """The objects of Python, from a process of their own."""
    with explained():
        return side_by_side.run(side_by_side.ROOT, [])


def start_up(folder: Path) -> Figures:
    """The median of several starts of ``kvmabi run -- true``, the whole process.

    An installed package has its bytecode, a working tree may have none: it is in ``folder`` after one more start.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    took = []
    for _ in range(1 + STARTS):
        start = time.perf_counter()
        with explained():
            command = [sys.executable, "-m", "kvmabi", "run", "--", "true"]
            subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        took.append(time.perf_counter() - start)
    return {"run": sorted(took[1:])[STARTS // 2] * 1e6}


def replayed() -> Figures:
    """One step of a recorded trace, on register maps that an earlier replay has built."""
    trace = packs.path("traces", TRACE)
    steps, taken, _ = replay.rates(trace, packs.host(Trace(trace).host), REPLAYS)
    return {"step": min(taken) / steps * 1e6}


def sides(folder: Path) -> dict[str, Side]:
    """All sides by name; ``folder`` holds what they compile."""
    host = fastpath.host(folder)
    once = {build: _once(partial(build, folder)) for build in (native, arm64, static)}
    return {
        rows.NATIVE_OFF: partial(program, once[native], host, "reports off"),
        rows.NATIVE: partial(program, once[native], host, "reports on"),
        rows.ARM64_OFF: partial(program, once[arm64], host, "reports off"),
        rows.ARM64: partial(program, once[arm64], host, "reports on"),
        rows.STATIC: partial(program, once[static], host, "reports on"),
        rows.PYTHON: objects,
        rows.STARTUP: partial(start_up, folder),
        rows.REPLAY: replayed,
    }


def _once(build: Callable[[], Path]) -> Callable[[], Path]:
    """Builds when it is first asked, later returns the same."""
    built: list[Path] = []

    def path() -> Path:
        if not built:
            built.append(build())
        return built[0]

    return path


def measure(measured_sides: dict[str, Side], count: int) -> Measured:
    """All sides in turn, ``count`` times; one that lacks something is asked once."""
    measured = Measured()
    for _ in range(count):
        for name, side in measured_sides.items():
            if name in measured.missing:
                continue
            try:
                measured.rounds.setdefault(name, []).append(side())
            except UsageError as error:
                measured.missing[name] = str(error)
    return measured


def load() -> str:
    """How busy the machine is."""
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
