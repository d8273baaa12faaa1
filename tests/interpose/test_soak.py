# SPDX-License-Identifier: MIT
"""Many connections one after another, and many threads at once: the server's memory and descriptors do not grow."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from interpose.conftest import Build
from kvmabi.interpose.launch import PRELOAD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PRELOAD.is_file(), reason="the interposer was not built"),
]
REPORT = re.compile(r"^(early|halfway|end) (\d+) (\d+)$", re.M)
SPREAD_FDS = 4
"""A process that was killed may have its descriptors in the server for a moment."""


def soak(program: Path, *arguments: str, report: str) -> list[tuple[int, int]]:
    """The resident memory of ``kvmabi run`` in kB and its descriptors: early, halfway, at the end."""
    command = [sys.executable, "-m", "kvmabi", "run", "--saves", "none", "--report", report, "--", str(program)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    reports = [(int(memory), int(fds)) for _, memory, fds in REPORT.findall(done.stdout)]
    assert len(reports) == 3
    return reports


@pytest.mark.parametrize("report", ["text", "none"])
def test_connections(build: Build, report: str) -> None:
    """Each process has a vCPU and every fourth is killed with it: descriptors are closed, memory is freed.

    What a report remembers of a vCPU is a few hundred bytes.
    """
    (early, fds_early), _, (end, fds_end) = soak(build("soak"), "connections", "400", report=report)
    assert end - early < 4096
    assert abs(fds_end - fds_early) <= SPREAD_FDS


def test_threads(build: Build) -> None:
    """64 threads read and write a vCPU each as fast as they can: without a report nothing grows.

    With one, memory holds the events that wait to be recorded.
    """
    (early, fds_early), _, (end, fds_end) = soak(build("soak"), "threads", "64", "1", report="none")
    assert end - early < 4096
    assert fds_early == fds_end
    *_, (_, fds_end) = soak(build("soak"), "threads", "64", "1", report="text")
    assert fds_early == fds_end
