# SPDX-License-Identifier: MIT
"""Writes a captured host to a file atomically."""

from __future__ import annotations

import json
from pathlib import Path

from kvmabi import wholefile
from kvmabi.capture.host import Captured


def write(path: str, table: Captured) -> None:
    """Write a captured host as JSON, replacing an existing file. UsageError if it cannot be written."""
    wholefile.replace(Path(path), json.dumps(table, indent=1) + "\n")
