# SPDX-License-Identifier: MIT
"""Parts that several commands share: options, tables, and progress on a terminal."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kvmabi.errors import UsageError

if TYPE_CHECKING:
    from kvmabi.profiles import Host, Kernel

DEMO_HOST = "sme-demo"


def add_profiles(parser: ArgumentParser) -> None:
    """The options --host and --kernel."""
    parser.add_argument(
        "--host", default=DEMO_HOST, metavar="H", help="a built-in host or a file (default: %(default)s)"
    )
    parser.add_argument("--kernel", metavar="K", help="a built-in kernel or a file (default: the host's)")


def profiles(host: str, kernel: str | None) -> tuple[Host, Kernel]:
    """Returns the profiles that --host and --kernel name; the UsageError lists the choices."""
    from kvmabi.profiles import load_host, load_kernel  # here: --help and some commands start without them

    chosen = load_host(host)
    return chosen, load_kernel(kernel or chosen.kernel)


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns that fit their cells."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def complain(what: object) -> None:
    """Report an error on stderr, in one line."""
    line = printable(str(what)).replace("\n", "\\n")
    print(f"kvmabi: {line}", file=sys.stderr)


def printable(text: str) -> str:
    """A text for a terminal: what a file has put into it that does not print, escape sequences above all, is escaped.

    >>> printable("guest\\x1b[31m\\nvirt")
    'guest\\\\x1b[31m\\nvirt'
    """
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def words(text: str) -> list[str]:
    """A comma-separated option as a list."""
    return [word.strip().lower() for word in text.split(",") if word.strip()]


def one_of(kind: str, given: Iterable[str], choices: Iterable[str]) -> None:
    """Raises UsageError if one of ``given`` is not a choice."""
    names = list(choices)
    for word in given:
        if word not in names:
            raise UsageError(f"no {kind} {word!r}: take some of {', '.join(names)}")


class Progress:
    """A progress line on stderr, if that is a terminal."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self.shown = sys.stderr.isatty()

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of the total is done."""
        if self.shown:
            bar = "#" * (20 * done // max(self.total, 1))
            print(f"\r{self.label} [{bar:<20}] {done}/{self.total} {note}\x1b[K", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the line."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
