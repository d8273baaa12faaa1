# SPDX-License-Identifier: MIT
"""Traces: steps with the answers of a real kernel, one per line, plain or xz.

The first line is ``# host NAME``, the host that the kernel ran on. ``# kernel NAME`` may follow it, where that is not
the kernel of the host's profile. ``# seq NAME`` names the sequence that begins there; other lines with a # are
comments. All others are a step, a tab and the answer. In a record of a program (kvmabi.steps.recording) a comment that
begins as one of LEFT_OUT says where the record is not what the program did.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, cast

from kvmabi.errors import NOT_MODELLED, UsageError

MAX_LINE = 1 << 20
"""The length limit of a line in characters."""
BLOCK = 1 << 16
PACKED = ".xz"
CANNOT, INEXACT = "# cannot be expressed: ", "# inexact: "
UNMODELLED = f"# {NOT_MODELLED}: "
LEFT_OUT = (CANNOT, INEXACT, UNMODELLED)
MOST_LEFT_OUT = 100

Recorded = tuple[int, str, str]
"""A line's number, its step and the recorded answer."""


class Trace:
    """An open trace: the names of its ``host`` and its ``kernel`` (None if it names none), and its steps.

    ``sequence`` names the sequence of the step that was read last, ``left_out`` has the comments of LEFT_OUT that were
    read until then, each with its line's number, at most MOST_LEFT_OUT.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.sequence = ""
        self.left_out: list[tuple[int, str]] = []
        self.kernel: str | None = None
        self._lines = self._read()
        number, first = next(((number, line) for number, line in self._lines if line), (0, ""))
        if not number:
            raise UsageError(f"{path}: the trace is empty")
        prefix, _, host = first.partition("# host ")
        if prefix or not host.strip():
            raise UsageError(f"{path}:1: a trace begins with '# host NAME'")
        self.host = host.strip()
        for number, line in self._lines:
            if not line.startswith("# kernel "):
                self._lines = chain([(number, line)], self._lines)
                break
            self.kernel = line[9:].strip()

    def _read(self) -> Iterator[tuple[int, str]]:
        """The lines with their numbers, without line ends."""
        return enumerate(chain.from_iterable(self._blocks()), 1)

    def _blocks(self) -> Iterator[list[str]]:
        """The lines in blocks: a file may have no line ends, and reading line by line is slow."""
        rest, done = "", 0
        try:
            with _open(self.path, "r") as stream:
                while block := stream.read(BLOCK):
                    lines = (rest + block).split("\n")
                    if len(lines[0]) > MAX_LINE:
                        raise UsageError(f"{self.path}:{done + 1}: longer than {MAX_LINE >> 20} MiB")
                    rest = lines.pop()
                    done += len(lines)
                    yield lines
        except (OSError, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"{self.path}: cannot be read as a trace: {reason}") from None
        if rest:
            yield [rest]

    def steps(self) -> Iterator[Recorded]:
        """The steps in order; UsageError for a line that is not one. The words of a step are not checked."""
        for number, line in self._lines:
            text, tab, answer = line.partition("\t")
            if tab and text and text[0] != "#":
                yield number, text, answer
            elif line.startswith("# seq "):
                self.sequence = line[6:].strip()
            elif line.startswith(LEFT_OUT):
                if len(self.left_out) < MOST_LEFT_OUT:
                    self.left_out.append((number, line[2:]))
            elif line and line[0] != "#":
                raise UsageError(f"{self.path}:{number}: {line[:60]!r} is not a step with an answer")


def write(
    path: str,
    host: str,
    sequences: Iterable[tuple[str, Sequence[tuple[str, str]]]],
    *,
    kernel: str | None = None,
    more: bool = False,
) -> None:
    """Write named sequences of steps and answers as a trace, packed if its name ends with .xz.

    ``more``: add them to the trace that is there, if one is. UsageError if it cannot be written.
    """
    try:
        begun = more and Path(path).exists()
        with _open(path, "a" if more else "w") as stream:
            if not begun:
                stream.write(f"# host {host}\n" + (f"# kernel {kernel}\n" if kernel else ""))
            for name, steps in sequences:
                stream.write(f"# seq {name}\n" + "".join(f"{step}\t{answer}\n" for step, answer in steps))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def trace_paths(names: list[str]) -> list[str]:
    """Returns the names; UsageError for a file that does not exist."""
    for name in names:
        if not Path(name).is_file():
            raise UsageError(f"{name}: no such file")
    return names


def _open(path: str, mode: str) -> IO[str]:
    """Open a file as text, through xz if its name ends with .xz."""
    if path.endswith(PACKED):
        return cast(IO[str], lzma.open(path, mode + "t", encoding="utf-8"))
    return open(path, mode, encoding="utf-8")
