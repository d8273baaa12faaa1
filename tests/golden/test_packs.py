# SPDX-License-Identifier: MIT
"""``packs.py FOLDER`` replaces all packs or none."""

from __future__ import annotations

import lzma
import tarfile
from pathlib import Path

import pytest

from golden import packs

NAMES = ("hosts", "records", "traces")
OLD = b"old"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with old packs in place of the real one."""
    folder = tmp_path / "packs"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.tar.xz").write_bytes(OLD)
    monkeypatch.setattr(packs, "HERE", folder)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with one file for each pack."""
    folder = tmp_path / "source"
    for file in ("hosts/a.json", "golden/linux-6.1/b.jsonl.xz", "traces/linux-6.1/c.trace.xz"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(lzma.compress(b"{}\n") if file.endswith(".xz") else b"{}\n")
    return folder


def unchanged(here: Path) -> bool:
    """Whether the old packs, and nothing else, are in the folder."""
    return {file.name: file.read_bytes() for file in here.iterdir()} == {f"{name}.tar.xz": OLD for name in NAMES}


def test_a_folder_replaces_all_packs(here: Path, source: Path) -> None:
    """Each pack has the folder's files, and no temporary file remains."""
    assert packs.main([str(source)]) == 0
    assert sorted(file.name for file in here.iterdir()) == [f"{name}.tar.xz" for name in NAMES]
    members = {}
    for name in NAMES:
        with tarfile.open(here / f"{name}.tar.xz", "r:xz") as tar:
            members[name] = tar.getnames()
    assert members == {"hosts": ["a.json"], "records": ["linux-6.1.b.jsonl"], "traces": ["linux-6.1.c.trace"]}


@pytest.mark.parametrize("lacking", ["", "hosts", "golden", "traces", "everything"])
def test_a_folder_that_lacks_files_is_refused(
    here: Path, source: Path, capsys: pytest.CaptureFixture[str], lacking: str
) -> None:
    """One line on stderr, status 2, and the old packs remain."""
    if lacking:
        for file in source.rglob("*"):
            if file.is_file() and lacking in (file.relative_to(source).parts[0], "everything"):
                file.unlink()
    folder = str(source) if lacking else f"{source}/nonexistent"
    assert packs.main([folder]) == 2
    assert unchanged(here)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_is_not_xz_is_refused(here: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on stderr, status 2, and the old packs remain."""
    (source / "traces/linux-6.1/d.trace.xz").write_bytes(b"not xz")
    assert packs.main([str(source)]) == 2
    assert unchanged(here)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_write_that_fails_changes_no_pack(here: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first packs are replaced only after the last one is written."""
    write, written = packs._write, []

    def fail_at_the_last(target: Path, members: packs.Members) -> None:
        write(target, members)
        written.append(target)
        if len(written) == len(NAMES):
            raise OSError("no space")

    monkeypatch.setattr(packs, "_write", fail_at_the_last)
    assert packs.main([str(source)]) == 2
    assert unchanged(here)


def test_no_folder_is_a_usage_error(here: Path) -> None:
    """Status 2, and the old packs remain."""
    assert packs.main([]) == 2
    assert unchanged(here)
