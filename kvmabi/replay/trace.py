# SPDX-License-Identifier: MIT
"""Reading traces: ioctl steps with the answers of a real kernel, one a line, plain or xz."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kvmabi.errors import UsageError

MAX_LINE_BYTES = 1 << 20  # in characters, which are bytes but for what is no trace
# How many words a step has after its letter, at least; more are noise of the generator.
WORDS = {"N": 1, "I": 3, "F": 2, "G": 2, "S": 3, "P": 3, "B": 2, "b": 2, "L": 2, "M": 0, "R": 1}


class Step(NamedTuple):
    """One step: its letter, its words, the recorded answer, and where it stands (line number, sequence)."""

    op: str
    words: list[str]
    answer: str
    line: int
    sequence: str

    @property
    def text(self) -> str:
        """The step as recorded."""
        return " ".join((self.op, *self.words))


class Trace:
    """An open trace: the name of its host, and its steps."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lines = self._read()
        try:
            number, first = next(item for item in self._lines if item[1] != "\n")
        except StopIteration:
            raise UsageError(f"{path}: the trace is empty") from None
        if len(first) > MAX_LINE_BYTES:
            raise self._too_long(number)
        prefix, _, host = first.rstrip("\n").partition("# host ")
        if prefix or not host.strip():
            raise UsageError(f"{path}:1: a trace begins with '# host NAME'")
        self.host = host.strip()

    def _read(self) -> Iterator[tuple[int, str]]:
        try:
            with (lzma.open if self.path.endswith(".xz") else open)(self.path, "rt", encoding="utf-8") as stream:
                # a file may have no line's end at all
                yield from enumerate(iter(partial(stream.readline, MAX_LINE_BYTES + 1), ""), 1)
        except (OSError, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"{self.path}: cannot be read as a trace: {reason}") from None

    def _too_long(self, number: int) -> UsageError:
        return UsageError(f"{self.path}:{number}: longer than {MAX_LINE_BYTES >> 20} MiB")

    def steps(self) -> Iterator[Step]:
        """The steps in order; UsageError for a line that is none."""
        sequence = ""
        for number, line in self._lines:
            if line == "\n":
                continue
            if len(line) > MAX_LINE_BYTES:
                raise self._too_long(number)
            if line[0] == "#":
                if line.startswith("# seq "):
                    sequence = line[6:].strip()
                continue
            text, tab, answer = line.partition("\t")
            words = text.split()
            if not tab or not words or len(words) <= WORDS.get(words[0], MAX_LINE_BYTES):
                raise UsageError(f"{self.path}:{number}: {line[:60].rstrip()!r} is no step with an answer")
            yield Step(words[0], words[1:], answer.rstrip("\n"), number, sequence)


def trace_paths(names: list[str]) -> list[str]:
    """The files named; UsageError for one that is not there."""
    for name in names:
        if not Path(name).is_file():
            raise UsageError(f"{name}: no such file")
    return names
