# SPDX-License-Identifier: MIT
"""Compiling and running small C programs against header folders."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"
CC = shlex.split(os.environ.get("CC", "gcc"))
CROSS_CC = ("aarch64-linux-gnu-gcc",)
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")


def compile_c(source: str, flags: Sequence[str], *, compiler: Sequence[str] = CC, language: str = "c") -> str:
    """Compiles C text handed over on stdin; returns what the compiler printed, fails the test if it refuses."""
    command = [*compiler, "-x", language, *flags, "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    return done.stdout


def evaluate(
    folder: Path, expressions: Iterable[str], flags: Sequence[str], *, headers: str = "<linux/kvm.h>"
) -> list[int]:
    """What each C expression is worth, as 64 bits, with the given headers; folder is for the program."""
    lines = "\n".join(f'printf("%llu\\n", (unsigned long long)({e}));' for e in expressions)
    program = folder / "evaluate"
    includes = f"#include {headers}\n#include <stddef.h>\nint printf(const char *, ...);\n"
    source = f"{includes}int main(void) {{\n{lines}\nreturn 0; }}\n"
    compile_c(source, [*flags, "-o", str(program)])
    output = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return [int(line) for line in output.split()]
