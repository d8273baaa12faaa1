# SPDX-License-Identifier: MIT
"""The unpacked recordings go with the test run."""

from __future__ import annotations

from golden import packs


def pytest_sessionfinish() -> None:
    """Remove them before the run is checked for files that it leaves."""
    packs.remove()
