# SPDX-License-Identifier: MIT
"""Orphans are adopted, and only they."""

from __future__ import annotations

import os
import time

from processes import StartProcess

from kvmabi.interpose.descendants import Descendants

PATIENCE_SECONDS = 60


def test_orphans(start_process: StartProcess) -> None:
    """A process whose parents ended is seen while it runs, and reaped; children from before do not count."""
    sleeper = start_process("sleep", "600")
    reading, writing = os.pipe()
    with Descendants() as descendants:
        assert not descendants.alive()
        parent = start_process("sh", "-c", "exec 3<&0; (cat <&3 >/dev/null &) &", stdin=reading)
        os.close(reading)
        assert parent.wait(PATIENCE_SECONDS) == 0
        until_alive(descendants, True)
        os.close(writing)
        until_alive(descendants, False)
    assert sleeper.poll() is None


def until_alive(descendants: Descendants, expected: bool) -> None:
    """Wait for an orphan to be adopted, or to end: both take others as long as they take."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while descendants.alive() is not expected:
        assert time.monotonic() < deadline
        time.sleep(0.005)
