# SPDX-License-Identifier: MIT
"""How the interposer is compiled: at installation, for tests, and for arm64 programs on another machine.

setup.py loads this file by its path, before the package can be imported: it imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
INCLUDE = (HERE.parent / "include", HERE.parent.parent / "include")
"""The headers: inside an installed package, at the top of a checkout."""
CFLAGS = (
    *("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"),
    *("-Wall", "-Wextra", "-Werror"),
)
LDFLAGS = ("-static-libgcc", "-Wl,--exclude-libs,ALL")
"""backtrace.h says why."""


def sources() -> list[Path]:
    """The C files; their headers are next to them."""
    return sorted(HERE.glob("*.c"))


def command(
    compiler: Sequence[str], target: Path, flags: Iterable[str] = (), libraries: Iterable[str] = ()
) -> list[str]:
    """The command that compiles the interposer into ``target``, with further flags for compiler and linker."""
    headers = [f"-I{folder}" for folder in INCLUDE if folder.is_dir()]
    files = map(str, sources())
    return [*compiler, *CFLAGS, *flags, *headers, *files, "-o", str(target), *LDFLAGS, *libraries, "-ldl"]
