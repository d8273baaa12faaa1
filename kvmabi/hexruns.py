# SPDX-License-Identifier: MIT
"""Bytes as text, as recordings write them: hex, with ``bb*count.`` for a run of equal bytes."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_BYTES = 4096
_SIMPLE = re.compile(r"(?:[0-9a-fA-F]{2})*\Z")
_RUN = re.compile(r"((?:[0-9a-fA-F]{2})+?)(?:\*([0-9]{1,9})\.|(?=\Z)|(?=[0-9a-fA-F]{2}\*))")
_REPEATS = re.compile(rb"(.)\1{3,}", re.DOTALL)


def expand(text: str, *, most_bytes: int = MAX_BYTES) -> bytes:
    """Returns the bytes of ``text``; ValueError if it is not of this form, or has more than ``most_bytes``."""
    if "*" not in text:
        if not _SIMPLE.match(text):
            raise ValueError(f"{text[:40]!r} is not hex")
        if len(text) > 2 * most_bytes:
            raise ValueError(f"more than {most_bytes} bytes")
        return bytes.fromhex(text)
    out = bytearray()
    position = 0
    while position < len(text):
        match = _RUN.match(text, position)
        if match is None:
            raise ValueError(f"{text[position : position + 40]!r} is not hex with runs")
        data, count = bytes.fromhex(match[1]), int(match[2] or 1)
        if match[2] is None:
            out += data
        else:
            out += data[:-1] + data[-1:] * min(count, most_bytes + 1)
        if len(out) > most_bytes:
            raise ValueError(f"more than {most_bytes} bytes")
        position = match.end()
    return bytes(out)


@lru_cache(4096)
def compress(data: bytes) -> str:
    """Returns ``data`` as text."""
    out, position = [], 0
    for match in _REPEATS.finditer(data):
        out.append(data[position : match.start()].hex())
        out.append(f"{match[1].hex()}*{match.end() - match.start()}.")
        position = match.end()
    return "".join(out) + data[position:].hex()
