# SPDX-License-Identifier: MIT
"""Where clients are: a folder for each, whole or not at all, or a note that says why there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kvmabi.errors import UsageError

FOLDER = Path(__file__).resolve().parent.parent.parent / "build/clients"
VERSION = "version"
"""The file in a client's folder that names its version."""


class Place(NamedTuple):
    """Where a client is, or is to be."""

    name: str
    folder: Path = FOLDER

    @property
    def path(self) -> Path:
        """The client's folder."""
        return self.folder / self.name

    @property
    def note(self) -> Path:
        """The file that says why the client could not be had."""
        return self.folder / f"{self.name}.missing"

    def missing(self) -> str:
        """Why the client is not there; "" if it is."""
        if (self.path / VERSION).exists():
            return ""
        return self.note.read_text("utf-8").strip() if self.note.exists() else "it was not fetched: make clients"

    def version(self) -> str:
        """The version of the client, which is there."""
        return (self.path / VERSION).read_text("utf-8").strip()

    def fill(self, make: Callable[[Path], str]) -> str:
        """Have ``make`` put the client into an empty folder and return its version; returns why it could not."""
        if not self.missing():
            return ""
        partial = self.folder / f"{self.name}.partial"
        for leftover in (partial, self.path):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        self.note.unlink(missing_ok=True)
        try:
            (partial / VERSION).write_text(make(partial) + "\n", "utf-8")
            os.replace(partial, self.path)
        except (UsageError, OSError) as error:
            self.note.write_text(f"{error}\n", "utf-8")
            shutil.rmtree(partial, ignore_errors=True)
            return str(error)
        return ""
