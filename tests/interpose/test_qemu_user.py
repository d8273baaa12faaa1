# SPDX-License-Identifier: MIT
"""arm64 programs under qemu-user work, too: the interposer in the guest, the server outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lacking import needs

from interpose.builds import PRELOAD_FLAGS, PROGRAM_FLAGS, PROGRAMS, SOURCE, compile_file
from kvmabi.device import SystemFile
from kvmabi.interpose.launch import run

CROSS_CC = "aarch64-linux-gnu-gcc"
QEMU = "qemu-aarch64"
LIBRARIES = os.environ.get("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu")


@needs(CROSS_CC, what="an arm64 cross compiler")
@needs(QEMU, what="qemu-user")
@pytest.mark.parametrize("name", ["hello", "threads", "run", "passing", "paths", "many"])
def test_guest_program(name: str, preload: Path, system: SystemFile, tmp_path: Path) -> None:
    """The interposer compiles for arm64, and programs behave under qemu-user as they do natively."""
    guest = compile_file(SOURCE / "preload.c", tmp_path / "arm64.so", *PRELOAD_FLAGS, compiler=[CROSS_CC])
    program = compile_file(PROGRAMS / f"{name}.c", tmp_path / name, *PROGRAM_FLAGS, compiler=[CROSS_CC])
    command = [QEMU, "-L", LIBRARIES, "-E", f"LD_PRELOAD={guest}", str(program)]
    assert run(command, system, preload=preload) == (0, 0)
