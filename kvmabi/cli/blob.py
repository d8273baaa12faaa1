# SPDX-License-Identifier: MIT
"""``kvmabi blob``: snapshots of vCPUs and migration streams."""

from __future__ import annotations

from kvmabi.cli import blob_diff
from kvmabi.cli.command import Command

COMMAND = Command(
    "blob",
    "Read, judge and compare what a VMM saved of its vCPUs.",
    "  kvmabi blob diff a.vmstate b.vmstate\n\nexit status: 0 clean, 1 something found, 2 misuse",
    run=None,
    commands=(blob_diff.COMMAND,),
)
