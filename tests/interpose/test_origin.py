# SPDX-License-Identifier: MIT
"""A watcher asks where in a real program an ioctl came from."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import pytest
from lacking import needs

from interpose.builds import PROGRAM_FLAGS, PROGRAMS, SANITIZE, compile_file, compile_preload
from interpose.conftest import Build
from kvmabi.device import SystemFile, open_system
from kvmabi.events import Event, EventLog, Kind, Origin
from kvmabi.interpose import lines
from kvmabi.interpose.launch import run
from kvmabi.interpose.protocol import MOST_FRAMES
from kvmabi.profiles import load_host, load_kernel

SOURCE_FILE = PROGRAMS / "origin.c"
MARKED = {
    found[1]: number
    for number, text in enumerate(SOURCE_FILE.read_text("utf-8").splitlines(), 1)
    if (found := re.search(r"/\* line: (\w+) \*/", text))
}
WITHOUT_LINES = ("-g0",)
WRITES = ("main", "signal", "thread", "deep")
"""Where origin.c writes x3 from, in order."""


class Watched:
    """The origins of all events of a log."""

    def __init__(self, log: EventLog) -> None:
        self.origins: list[tuple[Event, Origin]] = []
        log.watchers.append(self.watch)

    def watch(self, event: Event) -> None:
        self.origins.append((event, event.ask_origin()))

    def of(self, what: str) -> list[Origin]:
        """Those of an ioctl."""
        return [origin for event, origin in self.origins if event.what == what]


@pytest.fixture
def watched(log: EventLog) -> Watched:
    return Watched(log)


def writes(watched: Watched) -> dict[str, Origin]:
    return dict(zip(WRITES, watched.of("KVM_SET_ONE_REG"), strict=True))


def chain(line: str, then: str) -> tuple[str, ...]:
    """The frames of a function that is marked in the source, and of its caller."""
    return tuple(f"{name} at {SOURCE_FILE}:{MARKED[mark]}" for name, mark in (("write_x3", line), (then, "restore")))


@pytest.mark.slow
@needs("addr2line")
def test_function_file_and_line(
    watched: Watched, build: Build, system: SystemFile, preload: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A program with debug information: each write's function, file and line, its callers, its process and thread."""
    assert run([str(build("origin"))], system, preload=preload) == (0, 0)
    pid, second = map(int, capfd.readouterr().out.split())
    found = writes(watched)
    for origin in found.values():
        assert origin.pid == pid
        assert re.fullmatch(r"set_reg at \S+/vmm\.h:\d+", origin.frames[0])  # inlined
        assert origin.frames[1:3] == chain("write", "restore_guest")
    assert found["main"].frames[3].startswith(f"main at {SOURCE_FILE}:")
    assert (found["main"].thread, found["main"].thread_name) == (pid, build("origin").name[:15])
    assert (found["thread"].thread, found["thread"].thread_name) == (second, "vcpu?[0")
    assert found["thread"].frames[3].startswith(f"second_thread at {SOURCE_FILE}:")
    assert any(frame.startswith("on_signal at") for frame in found["signal"].frames)
    assert any(frame.startswith("main at") for frame in found["signal"].frames)
    assert len(found["deep"].frames) == MOST_FRAMES


def test_ioctls_that_open_files_have_an_origin(
    watched: Watched, build: Build, system: SystemFile, preload: Path
) -> None:
    """The descriptor arrives, and the backtrace goes out; a vCPU that is closed comes from no ioctl."""
    assert run([str(build("origin"))], system, preload=preload) == (0, 0)
    for what in ("KVM_CREATE_VM", "KVM_CREATE_VCPU"):
        assert [bool(origin.frames) for origin in watched.of(what)] == [True]
    closed = [origin for event, origin in watched.origins if event.kind is Kind.CLOSED]
    assert [(origin.pid, origin.frames) for origin in closed] == [(0, ())]


@pytest.mark.slow
def test_symbols_without_debug_information(watched: Watched, build: Build, system: SystemFile, preload: Path) -> None:
    """The functions are those of the symbol table, with the distance from their start."""
    program = build("origin", *WITHOUT_LINES)
    assert run([str(program)], system, preload=preload) == (0, 0)
    for origin in writes(watched).values():
        for frame, name in zip(origin.frames, ("write_x3", "restore_guest"), strict=False):
            assert re.fullmatch(rf"{name}\+0x[0-9a-f]+ in {re.escape(str(program))}", frame)


def test_symbols_without_addr2line(
    watched: Watched, build: Build, system: SystemFile, preload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without binutils a program with debug information has the frames of one without."""
    monkeypatch.setattr(lines, "PROGRAM", "no-such-program")
    program = build("origin")
    assert run([str(program)], system, preload=preload) == (0, 0)
    assert re.fullmatch(rf"write_x3\+0x[0-9a-f]+ in {re.escape(str(program))}", writes(watched)["main"].frames[0])


def test_stripped(watched: Watched, build: Build, system: SystemFile, preload: Path) -> None:
    """A program without symbols: file and offset, in the program and not in the interposer."""
    program = build("origin", *WITHOUT_LINES, "-s")
    assert run([str(program)], system, preload=preload) == (0, 0)
    frames = writes(watched)["main"].frames
    assert len(frames) > 2
    for frame in frames[:3]:
        assert re.fullmatch(rf"{re.escape(str(program))}\+0x[0-9a-f]+", frame)


def test_program_that_is_gone(watched: Watched, system: SystemFile, preload: Path, tmp_path: Path) -> None:
    """Names are found after the process has ended and its file was replaced."""
    program = compile_file(SOURCE_FILE, tmp_path / "origin", *PROGRAM_FLAGS, *WITHOUT_LINES)
    assert run([str(program)], system, preload=preload) == (0, 0)
    program.unlink()
    program.write_text("#!/bin/sh\n")
    assert writes(watched)["main"].frames[0].startswith("write_x3+")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="there is no machine code for this machine")
def test_code_without_a_file(
    watched: Watched, build: Build, system: SystemFile, preload: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The backtrace ends at a JIT compiler's code, whose frame is an address."""
    assert run([str(build("jit", *WITHOUT_LINES))], system, preload=preload) == (0, 0)
    page = int(capfd.readouterr().out, 16)
    (origin,) = watched.of("KVM_SET_ONE_REG")
    assert origin.frames[0].startswith("called+")
    assert 0 < int(origin.frames[1], 16) - page < 16
    assert len(origin.frames) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["threads", "run", "fork", "fds", "passing", "devices"])
def test_programs_behave_the_same(
    name: str, watched: Watched, build: Build, log: EventLog, system: SystemFile, preload: Path
) -> None:
    """With every ioctl asked for: threads, signal handlers, waits in KVM_RUN, children, descriptors passed on."""
    if name == "devices":
        system = open_system(load_host("qemu-max"), load_kernel("linux-7.3"), log)
    assert run([str(build(name))], system, preload=preload) == (0, 0)
    asked = [origin for event, origin in watched.origins if event.kind is Kind.IOCTL]
    assert asked
    assert all(origin.pid and origin.frames for origin in asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["origin", "threads", "fork"])
def test_sanitized(name: str, watched: Watched, build: Build, system: SystemFile, tmp_path: Path) -> None:
    """Capturing a backtrace is free of memory errors and undefined behaviour."""
    preload = compile_preload(tmp_path / "preload.so", *SANITIZE)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not Path(runtime).exists():
        pytest.skip("needs the address sanitizer")
    environment = dict(os.environ) | {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    assert run([str(build(name))], system, environment=environment, preload=preload) == (0, 0)
    assert all(origin.frames for event, origin in watched.origins if event.kind is Kind.IOCTL)


def test_each_mode_change_has_its_own_origin(log: EventLog, watched: Watched, build: Build, preload: Path) -> None:
    """The client sends where a set of SVCR comes from unasked after the first: always this set's place and thread."""
    log.any_origin = False
    system = open_system(load_host("sme-demo"), load_kernel("sme-v12"), log)
    assert run([str(build("modes"))], system, preload=preload) == (0, 0)
    found = watched.of("KVM_SET_ONE_REG")
    places = [next(frame for frame in origin.frames if "streaming_mode" in frame) for origin in found]
    expected = ["enter_streaming_mode", "leave_streaming_mode"] * 4
    assert all(place.startswith(name) for place, name in zip(places, expected, strict=True))
    assert [origin.thread_name for origin in found] == [build("modes").name[:15]] * 6 + ["second", "renamed"]
    assert len({origin.thread for origin in found}) == 2
