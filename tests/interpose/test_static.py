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
HOOKED = re.compile(r"^DECLARE_NEXT\(\w+, (\w+),", re.M)
ALIAS = re.compile(r"^int (\w+)\([^;]*\) __attribute__\(\(alias\(", re.M)
OLD_STAT = re.compile(r"__f?l?xstat(at)?(64)?")
"""The names that stat() had, which go on to the hooks of the new names."""


def text_of(file: Path) -> str:
    """A C file without comments, and with empty strings."""
    return COMMENT_OR_STRING.sub(lambda part: '""' if part[0].startswith('"') else " ", file.read_text())


CODE = text_of(SOURCE / "preload.c")
FUNCTIONS = list(FUNCTION.finditer(CODE))
PUBLIC = {function["name"] for function in FUNCTIONS if not function["static"]} | set(ALIAS.findall(CODE))


def calls(text: str) -> set[str]:
    """The hooked functions that code calls by their public names."""
    return {name for name in PUBLIC if re.search(rf"\b{name}\s*\(", text)}


def test_public_functions() -> None:
    """Each function that is not static is a hook: it has a next one, or is another name of one that has."""
    hooked = set(HOOKED.findall(CODE)) | set(ALIAS.findall(CODE))
    assert len(hooked) > 20
    assert {name for name in PUBLIC - hooked if not OLD_STAT.fullmatch(name)} == set()
    assert hooked <= PUBLIC


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
    """In preload.c only the old names of stat() call hooked functions."""
    for function in FUNCTIONS:
        if not OLD_STAT.fullmatch(function["name"]):
            assert calls(function["body"]) == set(), function["name"]
