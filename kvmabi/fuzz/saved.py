# SPDX-License-Identifier: MIT
"""Findings as a trace, which ``kvmabi replay`` replays, with the file of the trace's host next to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvmabi import wholefile
from kvmabi.errors import UsageError
from kvmabi.fuzz.hunt import Finding
from kvmabi.profiles import host_names
from kvmabi.steps import trace


class SavedTrace:
    """A trace of findings, with a kernel's answers, written one by one.

    ``host`` is the name or file of the model's host, None if that is ``captured``. The trace names a built-in host; any
    other is copied next to the trace. ``more``: append to an existing trace.
    """

    def __init__(
        self, path: str, *, host: str | None, captured: Mapping[str, Any], kernel: str, more: bool = False
    ) -> None:
        self._path, self._kernel = path, kernel
        name = Path(path).name.removesuffix(trace.PACKED).removesuffix(".trace")
        self._host = host if host in host_names() else name
        if self._host in host_names() and host is None:
            raise UsageError(f"{path}: {name} is a built-in host: give the trace another name")
        if host is None:
            wholefile.replace(self._next_to_it(".json"), json.dumps({**captured, "name": name}, indent=1) + "\n")
        elif host not in host_names():
            _copy(Path(host), self._next_to_it(Path(host).suffix))
        self._write([], more=more)

    def add(self, seed: int, finding: Finding) -> None:
        """Add the steps of a finding and the kernel's answers."""
        steps = list(zip(finding.steps, finding.expected, strict=True))
        self._write([(f"{seed}.{finding.sequence}", steps)], more=True)

    def _write(self, sequences: list[tuple[str, list[tuple[str, str]]]], *, more: bool) -> None:
        trace.write(self._path, str(self._host), sequences, kernel=self._kernel, more=more)

    def _next_to_it(self, suffix: str) -> Path:
        return Path(self._path).with_name(f"{self._host}{suffix}")


def _copy(source: Path, target: Path) -> None:
    try:
        if source.resolve() != target.resolve():
            shutil.copyfile(source, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
