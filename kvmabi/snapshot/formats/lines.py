# SPDX-License-Identifier: MIT
"""The lines of a text file with their places, read in blocks and within limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kvmabi.snapshot.source import BLOCK_BYTES, BadBlob, Source

MOST_LINE_BYTES = 1 << 20


MOST_PACKED_LINES = 1 << 18
"""Of a compressed file, which may unpack to a thousand times its size: the largest VM's registers are as many."""


class Line(NamedTuple):
    """A line without its end: its number from 1, where it begins in bytes, and its text."""

    number: int
    start: int
    text: str


def lines(source: Source, most_bytes: int) -> Iterator[Line]:
    """The lines of the rest of a source. Raises BadBlob for more than ``most_bytes``, a line too long, or no UTF-8."""
    rest, number, start = b"", 0, source.at
    while True:
        block = source.peek(BLOCK_BYTES)
        source.skip(len(block))
        parts = (rest + block).split(b"\n")
        if block:
            rest = parts.pop()
        for part in parts:
            number += 1
            yield Line(number, start, _decoded(part, start))
            start += len(part) + 1
        if len(rest) > MOST_LINE_BYTES:
            raise BadBlob(f"line {number + 1} is longer than {MOST_LINE_BYTES >> 20} MiB", start, "too-large")
        if source.packed and number > MOST_PACKED_LINES:
            raise BadBlob(f"unpacks to more than {MOST_PACKED_LINES} lines: unpack it first", source.at, "too-large")
        if source.at > most_bytes:
            raise BadBlob(f"more than {most_bytes >> 20} MiB of text", source.at, "too-large")
        if not block:
            return


def _decoded(part: bytes, start: int) -> str:
    try:
        return part.rstrip(b"\r").decode("utf-8" if start else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadBlob("is not text", start + error.start) from None
