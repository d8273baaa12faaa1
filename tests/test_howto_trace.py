# SPDX-License-Identifier: MIT
"""docs/how-to/trace.md: every command prints what the page shows, with the example VMMs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from ctools import CC, INCLUDE, ROOT
from lacking import needs

PAGE = ROOT / "docs/how-to/trace.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("save_restore", "naive_list_order", "late_svcr")
pytestmark = [pytest.mark.slow, needs(CC[0])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, and kvmabi as a command."""
    path = tmp_path_factory.mktemp("howto")
    for name in PROGRAMS:
        source = ROOT / "vmm_examples" / f"{name}.c"
        subprocess.run([*CC, f"-I{INCLUDE}", "-o", path / name, source], check=True)
    (path / "bin").mkdir()
    command = path / "bin/kvmabi"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kvmabi "$@"\n')
    command.chmod(0o755)
    return path


def commands(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, and the lines that each prints."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether a page shows what is printed: … stands for any text, a line of it for any lines."""
    pattern = "\n".join(shown).replace("[", "[[]").replace("…", "*").replace("?", "[?]")
    return fnmatchcase("\n".join(printed), pattern)


def test_every_block_prints_what_it_shows(folder: Path) -> None:
    """In the page's order: later blocks use files of earlier ones."""
    env = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert len(blocks) > 5
    for block in blocks:
        for command, shown in commands(block):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert agrees(shown, done.stdout.splitlines()), f"$ {command}\n{done.stdout}"


def test_a_text_that_differs_is_found() -> None:
    """Only … stands for another text."""
    assert agrees(["a [0] …"], ["a [0] b"])
    assert agrees(["a", "…", "c"], ["a", "b", "b", "c"])
    assert not agrees(["a [0]"], ["a 0"])
