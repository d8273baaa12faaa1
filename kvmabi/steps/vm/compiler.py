# SPDX-License-Identifier: MIT
"""Compiles the executor: a static arm64 program, with a cross compiler or, on arm64, the machine's own."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from kvmabi.errors import UsageError

SOURCE = Path(__file__).with_name("executor.c")
CROSS_COMPILER = "aarch64-linux-gnu-gcc"
VARIABLE = "KVMABI_CROSS_CC"
"""Environment variable that names another compiler, optionally with arguments."""
FLAGS = ("-std=c11", "-O2", "-static", "-Wall", "-Wextra", "-Werror")
SECONDS = 120


def executor() -> bytes:
    """Returns the executor as an arm64 ELF file; UsageError without a compiler, or if it fails."""
    command = [*compiler(), *FLAGS, f"-I{include_folder()}", str(SOURCE)]
    with tempfile.TemporaryDirectory(prefix="kvmabi-") as folder:
        program = Path(folder, "executor")
        try:
            done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(f"{command[0]}: {error}") from None
        if done.returncode:
            first = next(iter(done.stderr.splitlines()), f"status {done.returncode}")
            raise UsageError(f"{command[0]} cannot compile the executor: {first}")
        return program.read_bytes()


def compiler() -> list[str]:
    """The command of a compiler for arm64; the UsageError names what to install."""
    chosen = shlex.split(os.environ.get(VARIABLE, ""))
    native = ["cc"] if platform.machine() in ("aarch64", "arm64") else []
    for command in filter(None, (chosen, [CROSS_COMPILER], native)):
        if shutil.which(command[0]):
            return command
    raise UsageError(
        f"no {' '.join(chosen) or CROSS_COMPILER}: install a cross compiler for arm64"
        f" (Debian: gcc-aarch64-linux-gnu and libc6-dev-arm64-cross), or name one in {VARIABLE}"
    )


def include_folder() -> Path:
    """Returns the folder of the kernel headers: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "include"
    return inside if inside.is_dir() else package.parent / "include"
