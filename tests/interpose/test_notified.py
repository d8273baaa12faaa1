# SPDX-License-Identifier: MIT
"""Programs without the preloaded library, whose system calls the kernel asks for."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lacking import needs
from processes import Processes

from interpose.builds import SOURCE
from interpose.conftest import Build
from kvmabi.device import SystemFile
from kvmabi.errors import UsageError
from kvmabi.events import Event, EventLog, Origin
from kvmabi.interpose import devkvm, launch, seccomp
from kvmabi.interpose.launch import ExitStatus, run
from kvmabi.interpose.program import CannotRun, Kind, check

Served = Callable[..., ExitStatus]
CONSTANT = re.compile(r"DEV_KVM_(\w+) = (\d+)")


@pytest.fixture
def served(system: SystemFile, preload: Path) -> Served:
    """served(program, *args, transport=None): a run, ended after a minute."""

    def start(*argv: object, transport: str | None = "seccomp") -> ExitStatus:
        return run(["timeout", "60", *map(str, argv)], system, preload=preload, transport=transport)

    return start


@pytest.mark.parametrize("flags", [("-static",), ("-static-pie",), ()])
def test_system_calls_without_the_c_library(served: Served, build: Build, flags: tuple[str, ...]) -> None:
    """/dev/kvm has its contents and errors under all its names; other files and descriptors are the kernel's."""
    assert served(build("rawcalls", *flags)) == (0, 0)


def test_chosen_for_a_static_program(build: Build, system: SystemFile, log: EventLog) -> None:
    """A static program needs no option; the interposer need not exist."""
    program = build("hello", "-static")
    assert check(str(program)).kind is Kind.STATIC
    assert run([str(program), "static"], system) == (0, 0)
    assert log.count > 0


@needs("musl-gcc")
def test_chosen_for_musl(build: Build, system: SystemFile) -> None:
    """A program that musl loads cannot load a library for glibc: the kernel asks for its calls."""
    program = str(build("exits", compiler=("musl-gcc",)))
    assert check(program).kind is Kind.STATIC
    assert "linked with /lib/ld-musl" in check(program).obstacle


def test_preload_cannot_reach_a_static_program(build: Build, system: SystemFile) -> None:
    """--transport preload is refused in one line."""
    with pytest.raises(UsageError, match="linked statically"):
        run([str(build("hello", "-static"))], system, transport="preload")


def test_dynamic_program_and_shell(served: Served, build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    """With --transport seccomp a shell and the programs that it starts, static or not, are served."""
    static, dynamic = build("hello", "-static"), build("hello")
    script = f'test -c /dev/kvm && test -w /dev/kvm && "{static}" x && exec "{dynamic}" x'
    assert served("sh", "-c", script) == (0, 0)
    assert capfd.readouterr().out == "hello\nhello\n"


def test_cannot_run(system: SystemFile, tmp_path: Path) -> None:
    """What exec refuses is reported as with the preloaded library."""
    (tmp_path / "data").write_text("x")
    with pytest.raises(CannotRun) as refused:
        run([str(tmp_path / "data")], system, transport="seccomp")
    assert refused.value.code == 126


@pytest.mark.parametrize(("how", "status"), [("3", 3), ("-9", 137)])
def test_exit_status(build: Build, system: SystemFile, how: str, status: int) -> None:
    """The program's own exit status, or 128 + S."""
    assert run([str(build("exits", "-static")), how], system) == (status, 0)


@pytest.mark.slow
def test_what_is_left_behind(
    build: Build, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: Processes
) -> None:
    """A process that outlives kvmabi can open files: the kernel does its calls."""
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.3)
    go, done = tmp_path / "go", tmp_path / "done"
    os.mkfifo(go)
    script = (
        f'(read line <"{go}"; cat /proc/self/stat >"{done}.part"; mv "{done}.part" "{done}") >/dev/null 2>&1 & exit 2'
    )
    assert served("sh", "-c", script) == (2, 0)
    go.write_text("go\n")
    deadline = time.monotonic() + 30
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done.read_text()


def test_origin(build: Build, system: SystemFile, log: EventLog) -> None:
    """An event's origin is the process, its thread and the system call's own function."""
    origins: list[Origin] = []

    def ask(event: Event) -> None:
        origins.append(event.ask_origin())

    log.watchers.append(ask)
    program = build("hello", "-static")
    assert run([str(program), "static"], system) == (0, 0)
    known = [origin for origin in origins if origin.pid]
    assert len(known) > 5
    assert {origin.thread_name for origin in known} == {program.name[:15]}
    assert all(origin.frames[0].startswith("ioctl") for origin in known)


def test_failure_of_the_device(
    build: Build, system: SystemFile, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bug in the device is reported in one line; the program gets an error and ends."""

    def break_down(*_arguments: object) -> int:
        raise KeyError("svcr")

    monkeypatch.setattr(system, "ioctl", break_down)
    assert run([str(build("hello", "-static"))], system).code == 125
    assert "kvmabi: internal error: KeyError: 'svcr' (" in capfd.readouterr().err


def test_the_same_device_as_in_c() -> None:
    """devkvm.py and devkvm.h describe one file."""
    constants = {name: int(value) for name, value in CONSTANT.findall((SOURCE / "devkvm.h").read_text())}
    found = {"MAJOR": devkvm.MAJOR, "MINOR": devkvm.MINOR, "INODE": devkvm.INODE, "BLOCK": devkvm.BLOCK_BYTES}
    assert constants == found


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_filter(machine: str) -> None:
    """The filter asks for each call of the table and for ioctls of KVM's type, and allows all else."""
    calls = seccomp.MACHINES[machine]
    code = list(seccomp.INSTRUCTION.iter_unpack(seccomp.program(calls)))
    for number in range(600):
        name = calls.names.get(number)
        for request in (0xAE03, 0x4004AE8B, 0x5401, 0):
            asked = name is not None and (name != "ioctl" or (request >> 8) & 0xFF == 0xAE)
            assert decided(code, number, calls.architecture, request) == asked
    assert not decided(code, 16, 0x40000003, 0xAE03)
    assert not decided(code, 2 | seccomp.X32, calls.architecture, 0)


def decided(code: list[tuple[int, ...]], number: int, architecture: int, request: int) -> bool:
    """What a filter decides, by an interpreter of the few instructions that it uses: whether to ask."""
    data = {0: number, 4: architecture, 24: request}
    place = accumulator = 0
    while True:
        kind, then, otherwise, constant = code[place]
        place += 1
        if kind == seccomp.RETURN:
            return constant == seccomp.RET_USER_NOTIF
        if kind == seccomp.LOAD:
            accumulator = data[constant]
        elif kind == seccomp.AND:
            accumulator &= constant
        else:
            holds = accumulator == constant if kind == seccomp.EQUAL else accumulator >= constant
            place += then if holds else otherwise


def test_numbers_of_calls(tmp_path: Path) -> None:
    """The table has the numbers of the system's headers."""
    calls = seccomp.calls()
    for number, name in calls.names.items():
        source = f'#include <sys/syscall.h>\n_Static_assert(SYS_{name} == {number}, "");\n'
        subprocess.run(["gcc", "-fsyntax-only", "-xc", "-"], input=source, text=True, check=True)
