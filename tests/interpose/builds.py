# SPDX-License-Identifier: MIT
"""Compiling the interposer and the test programs, and a system for them that needs no profile of a real host."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ctools import CC, INCLUDE

from kvmabi.device import SystemFile, open_system
from kvmabi.events import EventLog
from kvmabi.faults import Faults
from kvmabi.interpose import building
from kvmabi.profiles import Host, load_kernel

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
SOURCE = HERE.parent.parent / "kvmabi" / "interpose"
PROGRAM_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def compile_file(source: Path, target: Path, *flags: str, compiler: Sequence[str] = CC) -> Path:
    """Compile one C file; fails the test with the compiler's output on an error."""
    command = [*compiler, *flags, f"-I{INCLUDE}", str(source), "-o", str(target), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def compile_preload(target: Path, *flags: str, compiler: Sequence[str] = CC) -> Path:
    """Compile the interposer as an installation does; fails the test with the compiler's output on an error."""
    done = subprocess.run(building.command(compiler, target, flags), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def bare_system(log: EventLog, faults: Faults | None = None) -> SystemFile:
    """A host without SVE and SME."""
    host = Host("bare", "linux-7.3", "by hand", (), (), {}, {}, {})
    return open_system(host, load_kernel("linux-7.3"), log, faults=faults)
