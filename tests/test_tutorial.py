# SPDX-License-Identifier: MIT
"""docs/tutorial/first-test.md, followed to the letter: a block is a file that is written, or commands that are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest
from ctools import CC, ROOT
from lacking import needs
from test_wheel import NOT_SOURCE

PAGE = ROOT / "docs/tutorial/first-test.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`(\w+\.(?:py|c))`")
PLACE = re.compile(r"goes before the comment `(.*)`")
COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)
pytestmark = [pytest.mark.slow, needs(CC[0])]


class Block(NamedTuple):
    """A block of code, and the paragraph before it."""

    before: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """The page's blocks, in their order."""
    page = PAGE.read_text("utf-8")
    for match in FENCE.finditer(page):
        yield Block(page[: match.start()].rstrip().rpartition("\n\n")[2], *match.groups())


def shell(command: str, folder: Path, **variables: str) -> str:
    """What a command prints, as a terminal shows it."""
    env = os.environ | {"COLUMNS": "200"} | variables
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout


def write(block: Block, folder: Path) -> None:
    """Write the file that the paragraph before the block names, append to it, or insert into it."""
    (name,) = set(FILE.findall(block.before))
    file = folder / name
    if place := PLACE.search(block.before):
        text = file.read_text("utf-8")
        assert text.count(place[1]) == 1
        file.write_text(text.replace(f"\t{place[1]}\n", f"{block.text}\t{place[1]}\n"), "utf-8")
    elif "Append to" in block.before:
        file.write_text(f"{file.read_text('utf-8')}\n\n{block.text}", "utf-8")
    else:
        file.write_text(block.text, "utf-8")


def converse(block: Block, folder: Path, **variables: str) -> None:
    """Run the commands of a console; what follows each is in its output, in order, "…" standing for anything."""
    _, *parts = COMMAND.split(block.text)
    for command, expected in zip(parts[::2], parts[1::2], strict=True):
        output = shell(command, folder, **variables)
        lines = iter(output.splitlines())
        for line in filter(None, expected.splitlines()):
            pattern = line.replace("[", "[[]").replace("…", "*")
            assert any(fnmatchcase(said, pattern) for said in lines), f"{command}: {line!r} is not in\n{output}"


def test_every_step_does_what_the_page_says(tmp_path: Path) -> None:
    """All blocks but the first, which installs: in the environment of the tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    _install, *rest = blocks()
    for block in rest:
        if block.language == "console":
            converse(block, tmp_path, PATH=path)
        elif block.language == "yaml":
            commands = re.findall(r"^- run: (.*)$", block.text, re.MULTILINE)
            assert "6 passed" in shell(" && ".join(commands[1:]), tmp_path, PATH=path)
        else:
            write(block, tmp_path)
    assert {block.language for block in rest} == {"console", "python", "c", "yaml"}


def test_the_installation_installs_the_plugin(tmp_path: Path) -> None:
    """The first block, in a folder with a copy of the sources; CI does its second line, too."""
    shutil.copytree(ROOT, tmp_path / "kvmabi", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    first, *_, last = blocks()
    commands = COMMAND.findall(first.text)
    assert f"- run: {commands[-1]}\n" in last.text
    output = shell(" && ".join([*commands, "pip list", "pytest --markers"]), tmp_path)
    if "No matching distribution" in output:
        pytest.skip("no package index within reach")
    assert re.search(r"^hypothesis +\d", output, re.MULTILINE), output
    assert "@pytest.mark.kvmabi(" in output
