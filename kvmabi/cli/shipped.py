# SPDX-License-Identifier: MIT
"""The headers and examples that come with kvmabi: inside an installed package, at the top of a checkout."""

from __future__ import annotations

from pathlib import Path

from kvmabi.errors import UsageError

PACKAGE = Path(__file__).resolve().parents[1]


def folder(name: str) -> Path:
    """Returns the folder ``name`` ("include", "vmm_examples")."""
    for place in (PACKAGE / name, PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise UsageError(f"this installation of kvmabi has no {name}: install it again")
