# SPDX-License-Identifier: MIT
"""Writing a captured host: the whole file, or none."""

from __future__ import annotations

import json
from pathlib import Path

from kvmabi import wholefile
from kvmabi.capture.host import Captured


def write(path: str, table: Captured) -> None:
    """Write a captured host as JSON; a file of that name is replaced at once. UsageError if it cannot be."""
    wholefile.replace(Path(path), json.dumps(table, indent=1) + "\n")
