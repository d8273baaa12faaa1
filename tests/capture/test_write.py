# SPDX-License-Identifier: MIT
"""Writing: the whole file or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmabi.capture import write
from kvmabi.errors import UsageError
from kvmabi.wholefile import replace


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    """An old file gives way to the new one, and nothing else stays in the folder."""
    path = tmp_path / "host.json"
    path.write_text("old")
    write(str(path), {"name": "new"})
    assert path.read_text() == '{\n "name": "new"\n}\n'
    assert os.listdir(tmp_path) == ["host.json"]


def test_what_cannot_be_written_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old file and no other; a folder that is not there is a UsageError."""
    path = tmp_path / "host.json"
    path.write_text("old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        replace(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["host.json"]
    with pytest.raises(UsageError, match="cannot be written"):
        write(str(tmp_path / "nowhere" / "x.json"), {})
