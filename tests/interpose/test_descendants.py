# SPDX-License-Identifier: MIT
"""Orphans are adopted, and only they."""

from __future__ import annotations

import subprocess
import time

from kvmabi.interpose.descendants import Descendants


def test_orphans() -> None:
    """A process whose parents ended is seen while it runs, and reaped; children from before do not count."""
    sleeper = subprocess.Popen(["sleep", "60"])
    with Descendants() as descendants:
        assert not descendants.alive()
        subprocess.run(["sh", "-c", "(sleep 0.3 &) &"], check=True)
        assert descendants.alive()
        deadline = time.monotonic() + 10
        while descendants.alive():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()
