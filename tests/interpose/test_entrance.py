# SPDX-License-Identifier: MIT
"""The server is made for the first client, not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from interpose.conftest import Build
from kvmabi.device import SystemFile
from kvmabi.interpose.launch import run

ABOUT_KVM = ("kvmabi.device", "kvmabi.model.vcpu", "kvmabi.interpose.server", "kvmabi.cli.junit", "kvmabi.cli.sarif")


def test_opened_once_when_needed(build: Build, preload: Path, system: SystemFile) -> None:
    """A program that leaves /dev/kvm alone does not open it; one whose processes use it opens it once."""
    opened = []

    def system_file() -> SystemFile:
        opened.append(system)
        return system

    assert run(["true"], system_file, preload=preload) == (0, 0)
    assert not opened
    hello = str(build("hello"))
    assert run(["sh", "-c", f"{hello} && {hello}"], system_file, preload=preload) == (0, 0)
    assert opened == [system]


def test_start_imports_what_is_used() -> None:
    """``kvmabi run -- true`` imports nothing of what answers ioctls, nor the forms of report that it does not write."""
    command = [sys.executable, "-X", "importtime", "-m", "kvmabi", "run", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "kvmabi.interpose.launch" in imported
    assert imported.isdisjoint(ABOUT_KVM)
