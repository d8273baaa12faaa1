# SPDX-License-Identifier: MIT
"""Manifests: each spelling of a line, and one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmabi.errors import UsageError
from kvmabi.fleet import manifest
from kvmabi.fleet.manifest import Entry


def entries(folder: Path, text: str) -> list[Entry]:
    """The entries of a manifest with this text."""
    path = folder / "manifest"
    path.write_text(text, "utf-8")
    return list(manifest.read(str(path)))


def test_every_spelling(tmp_path: Path) -> None:
    """JSON, tabs and commas; size and etag may be missing; comments and empty lines are left out."""
    text = '# comment\n\n{"url": "a", "size": 3, "etag": "x"}\nb\t4\ty\nc, 5, z\nd\n{"url": "e"}\n'
    expected = [Entry("a", 3, "x"), Entry("b", 4, "y"), Entry("c", 5, "z"), Entry("d"), Entry("e")]
    assert entries(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no file"),
        ("# only a comment\n", "names no file"),
        ('{"url": 5}\n', "manifest:1: names no URL"),
        ('{"url": ""}\n', "manifest:1: names no URL"),
        ("a\n{broken\n", "manifest:2: is not a JSON object"),
        ("{" * 5000 + "\n", "manifest:1: is not a JSON object"),
        ("a, -3\n", "'-3' is not a size in bytes"),
        ("a, 1, e, more\n", "has 4 columns"),
        ("x" * 70_000 + "\n", "a line has more than"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, reason: str) -> None:
    """The error names the line."""
    with pytest.raises(UsageError) as error:
        entries(tmp_path, text)
    assert reason in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    """A manifest that is not there is one line."""
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        list(manifest.read(str(tmp_path / "none")))
