# SPDX-License-Identifier: MIT
"""Fixtures: compiled programs, a device for them, and a server in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from interpose.builds import PRELOAD_FLAGS, PROGRAM_FLAGS, PROGRAMS, SOURCE, bare_system, compile_file
from interpose.rawclient import serving
from kvmabi.device import SystemFile
from kvmabi.events import EventLog
from kvmabi.interpose.launch import ExitStatus, run
from kvmabi.interpose.server import Server

Build = Callable[..., Path]
Start = Callable[..., ExitStatus]
PATIENCE = "60"
"""Seconds after which a program that hangs is ended."""


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interposer, compiled with every warning an error."""
    return compile_file(SOURCE / "preload.c", tmp_path_factory.mktemp("preload") / "preload.so", *PRELOAD_FLAGS)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """build(name, *flags): the test program of that name, compiled once for each set of flags."""
    folder = tmp_path_factory.mktemp("programs")

    @cache
    def compiled(name: str, *flags: str) -> Path:
        target = folder / "-".join([name, *(flag.strip("-").replace("=", "-") for flag in flags)])
        return compile_file(PROGRAMS / f"{name}.c", target, *PROGRAM_FLAGS, *flags)

    return compiled


@pytest.fixture
def log() -> EventLog:
    return EventLog()


@pytest.fixture
def system(log: EventLog) -> SystemFile:
    return bare_system(log)


@pytest.fixture
def start(preload: Path, build: Build, system: SystemFile) -> Start:
    """start(name, *args): run a test program with the interposer."""

    def started(name: str, *args: str) -> ExitStatus:
        return run(["timeout", "--kill-after=5", PATIENCE, str(build(name)), *args], system, preload=preload)

    return started


@pytest.fixture
def server(system: SystemFile, tmp_path: Path) -> Iterator[Server]:
    """A server on the socket ``socket`` in tmp_path, served by a thread."""
    with serving(system, tmp_path) as served:
        yield served
