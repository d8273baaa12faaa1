# SPDX-License-Identifier: MIT
"""QEMU's arm64 system emulator, built for arm64, with the libraries that it links to."""

from __future__ import annotations

from pathlib import Path

from fetch_clients import packages

PACKAGE = "qemu-system-arm"


def fetch(folder: Path, into: Path, suite: str) -> str:
    """A suite's QEMU as ``into``/root; returns the version of its package."""
    source = packages.suite(suite, folder)
    packages.root(source, into, PACKAGE)
    return packages.version(source, PACKAGE)
