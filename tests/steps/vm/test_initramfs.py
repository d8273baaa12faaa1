# SPDX-License-Identifier: MIT
"""The initramfs: what cpio itself reads out of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kvmabi.steps.vm.initramfs import ALIGNMENT_BYTES, initramfs


def test_the_bytes_are_newc() -> None:
    """Magic numbers, the program and the trailer are at the format's offsets, each aligned to four bytes."""
    archive = initramfs(b"PROGRAM")
    assert archive.startswith(b"070701")
    assert archive.index(b"PROGRAM") % ALIGNMENT_BYTES == 0
    assert b"TRAILER!!!\0" in archive
    assert len(archive) % ALIGNMENT_BYTES == 0


def test_cpio_reads_it(tmp_path: Path) -> None:
    """cpio lists the console's device node and extracts the program as it was put in."""
    if not shutil.which("cpio"):
        pytest.skip("there is no cpio to read it with")
    archive = initramfs(bytes(range(256)) * 5)
    listed = subprocess.run(["cpio", "-itv", "--quiet"], input=archive, capture_output=True, check=True).stdout.decode()
    console = next(line for line in listed.splitlines() if "dev/console" in line)
    assert console.startswith("crw")
    assert "5," in console
    extract = ["cpio", "-i", "--quiet", "init"]
    subprocess.run(extract, input=archive, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "init").read_bytes() == bytes(range(256)) * 5
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
