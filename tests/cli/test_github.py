# SPDX-License-Identifier: MIT
"""Annotations of GitHub Actions: one line each, escaped as the runner reads it, on stderr only, and only there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvmabi.cli.github import Annotation, Level, show, text

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=20)
PRINTABLE = st.text(st.characters(codec="utf-8"), max_size=20).map(
    lambda made: "".join(char for char in made if char.isprintable() or char in "\r\n")
)


def read(line: str) -> tuple[str, dict[str, str], str]:
    """Read a line as the runner does: the command up to the next "::", properties at commas, escapes taken back."""
    found = re.fullmatch(r"::(\w+) (.*?)::(.*)", line)
    assert found is not None
    pairs = (pair.split("=", 1) for pair in found[2].split(","))
    properties = {name: value.replace("%3A", ":").replace("%2C", ",") for name, value in pairs}
    return found[1], {name: data(value) for name, value in properties.items()}, data(found[3])


def data(value: str) -> str:
    return value.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


@given(level=st.sampled_from(Level), title=PRINTABLE, message=PRINTABLE, line=st.integers(0, 99))
@example(Level.ERROR, "a::b, c=d: 100%0A", "x::y %25 %3A", 1)
def test_there_and_back(level: Level, title: str, message: str, line: int) -> None:
    """The runner reads what was said, with colons, commas, percent signs and newlines."""
    command, properties, said = read(text(Annotation(level, title, message, "src/a,b:c.c", line)))
    assert (command, properties["title"], said) == (level, title, message)
    assert properties["file"] == "src/a,b:c.c"
    assert properties.get("line") == (str(line) if line else None)


@given(title=ANYTHING, message=ANYTHING, path=ANYTHING)
def test_one_line(title: str, message: str, path: str) -> None:
    """Nothing in a finding starts another workflow command, or reaches a terminal unescaped."""
    line = text(Annotation(Level.ERROR, title, message, path.replace("\0", ""), 1))
    assert line.isprintable()
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(("variable", "shown"), [("true", True), ("false", False), (None, False)])
def test_only_in_github_actions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str | None, shown: bool
) -> None:
    """GITHUB_ACTIONS=true, and stderr."""
    if variable is not None:
        monkeypatch.setenv("GITHUB_ACTIONS", variable)
    show([Annotation(Level.WARNING, "t", "m")])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("::warning title=t::m\n" if shown else "")


def test_file_below_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An absolute path is relative, as the runner finds it in the checkout; another one stays."""
    monkeypatch.chdir(tmp_path)
    assert ",file=src/a.c," in text(Annotation(Level.ERROR, "t", "m", str(tmp_path / "src/a.c"), 3))
    assert ",file=/usr/a.c," in text(Annotation(Level.ERROR, "t", "m", "/usr/a.c", 3))
