# SPDX-License-Identifier: MIT
"""What several commands share: options, tables, JSON, and progress on a terminal."""

from __future__ import annotations

import json
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kvmabi.errors import UsageError
from kvmabi.profiles import Host, Kernel, host_names, load_host, load_kernel
from kvmabi.steps.trace import Trace

DEMO_HOST = "sme-demo"


def add_profiles(parser: ArgumentParser) -> None:
    """The options --host and --kernel."""
    parser.add_argument(
        "--host", default=DEMO_HOST, metavar="H", help="a built-in host or a file (default: %(default)s)"
    )
    parser.add_argument("--kernel", metavar="K", help="a built-in kernel or a file (default: the host's)")


def profiles(host: str, kernel: str | None) -> tuple[Host, Kernel]:
    """The profiles that --host and --kernel name; UsageError tells the choices."""
    found = load_host(host)
    return found, load_kernel(kernel or found.kernel)


def host_of(trace: Trace, folder: str | None) -> Host:
    """The host that a trace names: from a folder, or else a built-in one, or from the trace's own folder."""
    for what, name in (("host", trace.host), ("kernel", trace.kernel or "")):
        if "/" in name or name.startswith("."):
            raise UsageError(f"{trace.path}: {name!r} is not the name of a {what}")
    builtin = f"built-in ones are {', '.join(host_names())}"
    if folder is None and trace.host in host_names():
        return load_host(trace.host)
    place = Path(trace.path).parent if folder is None else Path(folder)
    for suffix in (".json", ".toml"):
        if (path := place / f"{trace.host}{suffix}").is_file():
            return load_host(str(path))
    if folder is None:
        raise UsageError(
            f"{trace.path}: its host {trace.host} is unknown: {builtin}; --hosts names a folder with others"
        )
    choices = ", ".join(sorted(entry.stem for entry in place.glob("*.json"))) or f"none; {builtin}"
    raise UsageError(f"{trace.path}: its host {trace.host} is not in {folder}, which has {choices}")


def add_json(parser: ArgumentParser, *, nested: bool = False) -> None:
    """The option --json; ``nested``: the parent command has it, too, and it counts in either place."""
    parser.add_argument("--json", action="store_true", default=SUPPRESS if nested else False, help="print JSON")


def print_json(value: Any) -> None:
    """Print a value for machines."""
    print(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns as wide as they need."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def words(text: str) -> list[str]:
    """A comma-separated option as a list."""
    return [word.strip().lower() for word in text.split(",") if word.strip()]


def one_of(kind: str, given: Iterable[str], choices: Iterable[str]) -> None:
    """UsageError if one of ``given`` is none of the choices."""
    known = list(choices)
    for word in given:
        if word not in known:
            raise UsageError(f"no {kind} {word!r}: take some of {', '.join(known)}")


class Progress:
    """A line on a terminal's stderr that tells how far a long work is; elsewhere nothing."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self.shown = sys.stderr.isatty()

    def update(self, done: int, note: str = "") -> None:
        """Tell that ``done`` of the total is done."""
        if self.shown:
            bar = "#" * (20 * done // max(self.total, 1))
            print(f"\r{self.label} [{bar:<20}] {done}/{self.total} {note}\x1b[K", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the line away."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
