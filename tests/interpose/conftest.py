# SPDX-License-Identifier: MIT
"""Fixtures: compiled programs, a device for them, and a server in a thread."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from ctools import CC, CROSS_CC
from lacking import needs

from interpose.builds import PROGRAM_FLAGS, PROGRAMS, bare_system, compile_file, compile_preload
from interpose.rawclient import serving
from kvmabi.device import SystemFile
from kvmabi.events import EventLog
from kvmabi.interpose.launch import ExitStatus, run
from kvmabi.interpose.server import Server

Build = Callable[..., Path]
Start = Callable[..., ExitStatus]
ARM64 = pytest.param(
    "arm64",
    marks=[
        needs(*CROSS_CC, what="an arm64 cross compiler"),
        needs("qemu-aarch64", what="qemu-user"),
        pytest.mark.slow,
    ],
)
"""A test that runs its programs under qemu-user as well."""
STATIC = pytest.param("static", marks=pytest.mark.slow)
"""A test that runs its programs under a seccomp filter as well, linked statically."""
PATIENCE = "60"
"""Seconds after which a program that hangs is ended."""


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interposer, compiled with every warning an error."""
    return compile_preload(tmp_path_factory.mktemp("preload") / "preload.so")


@pytest.fixture(scope="session")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The interposer for arm64 programs on this machine, compiled alike; None without a cross compiler."""
    if shutil.which(CROSS_CC[0]) is None:
        return None
    return compile_preload(tmp_path_factory.mktemp("arm64") / "preload.so", compiler=CROSS_CC)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """build(name, *flags): the test program of that name, compiled once for each set of flags and compiler."""
    folder = tmp_path_factory.mktemp("programs")

    @cache
    def compiled(name: str, *flags: str, compiler: tuple[str, ...] = tuple(CC)) -> Path:
        target = folder / "-".join([name, *(flag.strip("-").replace("=", "-") for flag in flags), *compiler])
        return compile_file(PROGRAMS / f"{name}.c", target, *PROGRAM_FLAGS, *flags, compiler=compiler)

    return compiled


@pytest.fixture
def log() -> EventLog:
    return EventLog()


@pytest.fixture
def system(log: EventLog) -> SystemFile:
    return bare_system(log)


@pytest.fixture(params=["native", ARM64, STATIC])
def start(request: pytest.FixtureRequest, preload: Path, arm64: Path, build: Build, system: SystemFile) -> Start:
    """start(name, *args): run a test program, built for this machine, for arm64, or statically."""
    compiler = CROSS_CC if request.param == "arm64" else tuple(CC)
    flags, transport = (("-static",), "seccomp") if request.param == "static" else ((), None)

    def started(name: str, *args: str) -> ExitStatus:
        program = str(build(name, *flags, compiler=compiler))
        command = ["timeout", "--kill-after=5", PATIENCE, program, *args]
        return run(command, system, preload=preload, arm64=arm64, transport=transport)

    return started


@pytest.fixture
def server(system: SystemFile, tmp_path: Path) -> Iterator[Server]:
    """A server on the socket ``socket`` in tmp_path, served by a thread."""
    with serving(system, tmp_path) as served:
        yield served
