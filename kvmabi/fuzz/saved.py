# SPDX-License-Identifier: MIT
"""Findings as a trace, which ``kvmabi replay`` replays, with the files of its host and kernel next to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvmabi import wholefile
from kvmabi.errors import UsageError
from kvmabi.fuzz.hunt import Finding
from kvmabi.profiles import host_names, kernel_names
from kvmabi.profiles.kernel import table_of
from kvmabi.steps import trace


class SavedTrace:
    """A trace of findings, with a kernel's answers, written one by one.

    ``host`` is the name or file of the model's host, None if that is ``captured``. The trace names a built-in host; any
    other is copied next to the trace. ``kernel`` is a built-in kernel profile or a file; a file is copied next to the
    trace, with everything that it is based on. ``more``: append to an existing trace.
    """

    def __init__(
        self, path: str, *, host: str | None, captured: Mapping[str, Any], kernel: str, more: bool = False
    ) -> None:
        self._path = path
        name = Path(path).name.removesuffix(trace.PACKED).removesuffix(".trace")
        self._host = host if host in host_names() else name
        if self._host in host_names() and host is None:
            raise UsageError(f"{path}: {name} is a built-in host: give the trace another name")
        if host is None:
            wholefile.replace(self._next_to_it(f"{name}.json"), json.dumps({**captured, "name": name}, indent=1) + "\n")
        elif host not in host_names():
            _copy(Path(host), self._next_to_it(f"{name}{Path(host).suffix}"))
        self._kernel = kernel if kernel in kernel_names() else f"{name}.kernel"
        if self._kernel != kernel:
            table = {key: value for key, value in table_of(kernel).items() if key not in ("base", "replaces")}
            wholefile.replace(self._next_to_it(f"{self._kernel}.json"), json.dumps(table, indent=1) + "\n")
        self._write([], more=more)

    def add(self, seed: int, finding: Finding) -> None:
        """Add the steps of a finding and the kernel's answers."""
        steps = list(zip(finding.steps, finding.expected, strict=True))
        self._write([(f"{seed}.{finding.sequence}", steps)], more=True)

    def _write(self, sequences: list[tuple[str, list[tuple[str, str]]]], *, more: bool) -> None:
        trace.write(self._path, str(self._host), sequences, kernel=self._kernel, more=more)

    def _next_to_it(self, name: str) -> Path:
        return Path(self._path).with_name(name)


def _copy(source: Path, target: Path) -> None:
    try:
        if source.resolve() != target.resolve():
            shutil.copyfile(source, target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
