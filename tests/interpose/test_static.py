# SPDX-License-Identifier: MIT
"""The preloaded library exports what it hooks and nothing else, and its inside does not call what it hooks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from interpose.builds import SOURCE
from kvmabi.interpose.launch import PRELOAD

COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', re.DOTALL)
FUNCTION = re.compile(
    r"^(?P<static>static )?[\w *]+?\b(?P<name>\w+)\([^;{}]*\)\n\{\n(?P<body>.*?)^\}", re.DOTALL | re.M
)
NEXT = re.compile(r"\bNEXT\((\w+)\)")
ROW = re.compile(r"^(?P<kind>HOOK_\w+)\((?P<name>\w+), (?P<second>\w+)", re.M)
"""A hook that a macro defines."""
ALIAS = re.compile(r"^int (\w+)\([^;]*\) __attribute__\(\(alias\(", re.M)


def text_of(file: Path) -> str:
    """A C file without comments, and with empty strings."""
    return COMMENT_OR_STRING.sub(lambda part: '""' if part[0].startswith('"') else " ", file.read_text())


CODE = "".join(text_of(file) for file in sorted(SOURCE.glob("*.c")))
OLD_STAT = {row["name"]: row["second"] for row in ROW.finditer(CODE) if row["kind"] == "HOOK_OLD_STAT"}
"""The names that stat() had, each with the hook that it goes on to."""
FAMILY = {"execv", "execvp", "execl", "execlp", "execle"}
"""Hooks that go on to the next library's execve() and execvpe()."""


FUNCTIONS = list(FUNCTION.finditer(CODE))
ROWS = {row["name"] for row in ROW.finditer(CODE)}
PUBLIC = {function["name"] for function in FUNCTIONS if not function["static"]} | set(ALIAS.findall(CODE)) | ROWS


def calls(text: str) -> set[str]:
    """The hooked functions that code calls by their public names; syscall() changes nothing but a filter."""
    return {name for name in PUBLIC - {"syscall"} if re.search(rf"\b{name}\s*\(", text)}


def test_public_functions() -> None:
    """Each function that is not static is a hook: it has a next one, or is another name of one that has."""
    hooked = (set(NEXT.findall(CODE)) - {"name"}) | set(ALIAS.findall(CODE)) | ROWS - FAMILY - OLD_STAT.keys()
    assert len(hooked) > 20
    assert PUBLIC - hooked - OLD_STAT.keys() == FAMILY
    assert hooked <= PUBLIC
    assert set(OLD_STAT.values()) <= hooked


def test_exports(preload: Path) -> None:
    """The dynamic symbols are the public functions, in the library of the package as well."""
    libraries = [preload, PRELOAD] if PRELOAD.is_file() else [preload]
    for library in libraries:
        done = subprocess.run(
            ["nm", "-D", "--defined-only", "--format=posix", library], capture_output=True, text=True, check=True
        )
        assert {line.split()[0] for line in done.stdout.splitlines()} == PUBLIC


@pytest.mark.parametrize("header", sorted(file.name for file in SOURCE.glob("*.h")))
def test_headers(header: str) -> None:
    """Functions in headers are static, and call none of the hooked functions."""
    code = text_of(SOURCE / header)
    assert [function["name"] for function in FUNCTION.finditer(code) if not function["static"]] == []
    assert calls(code) == set()


def test_inside() -> None:
    """In preload.c only the old names of stat(), which are rows of a macro, call hooked functions."""
    assert len(FUNCTIONS) > 20
    for function in FUNCTIONS:
        assert calls(function["body"]) == set(), function["name"]
