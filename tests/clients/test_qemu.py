# SPDX-License-Identifier: MIT
"""QEMU starts, runs an idle guest and migrates under ``kvmabi run``, and kvmabi finds fault only where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from clients.available import needs_client
from clients.qemu import Qemu
from clients.running import Result
from kvmabi import regid
from kvmabi.snapshot import Snapshot, opening
from lacking import needs

HOST = "neoverse-v1"
WIDE_HOST = "qemu-max"
"""A host with vectors of 2048 bits."""


class Version(NamedTuple):
    """A QEMU, the kernel that its release of Debian has, and another kernel, onto which its saves do not fit."""

    client: str
    kernel: str
    older: str


BOOKWORM = Version("qemu-bookworm", "linux-6.1", "linux-6.1")
TRIXIE = Version("qemu-trixie", "linux-6.12", "linux-6.1")
VERSIONS = [pytest.param(version, marks=needs_client(version.client), id=version.client) for version in (BOOKWORM, TRIXIE)]
