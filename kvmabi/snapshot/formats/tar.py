# SPDX-License-Identifier: MIT
"""Walks through a tar file, in memory: names and places of regular members; nothing is unpacked to disk.

The standard library's reader would keep a header of any size that a file claims. This one passes over what it has no
need of: long names, extended headers, links, devices. POSIX.1-2001, "ustar Interchange Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kvmabi.snapshot.source import BadBlob, Source

BLOCK_BYTES = 512
MOST_MEMBERS = 1 << 16
_MAGIC_AT, _MAGIC = 257, b"ustar"
_CHECKSUM_AT, _CHECKSUM_BYTES = 148, 8
_REGULAR = b"0\0"
_RENAMING = b"LxX"
"""Types of members that can give the next one another name."""


class Member(NamedTuple):
    """A regular member: its path as stored, and where its content is in the file, in bytes."""

    path: str
    at: int
    size_bytes: int


def recognises(head: bytes) -> bool:
    """Whether a file begins with a header of a tar file."""
    return head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC and _checksum_holds(head[:BLOCK_BYTES])


def members(source: Source) -> Iterator[Member]:
    """The regular members in order. Each may be read from the source before the next one is asked for.

    Raises BadBlob, also for a file that ends too early.
    """
    renamed = False
    for _ in range(MOST_MEMBERS):
        at = source.at
        header = source.peek(BLOCK_BYTES)
        if not header or not any(header):
            return
        header = source.take(BLOCK_BYTES)
        if not _checksum_holds(header):
            raise BadBlob("the checksum of a header of the tar file is wrong", at)
        size_bytes = _octal(header[124:136], at)
        kind = header[156]
        after = source.at + -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        if kind in _REGULAR and not renamed:
            yield Member(_path(header), source.at, size_bytes)
        renamed = kind in _RENAMING and _renames(source, size_bytes)
        if source.seekable and source.size_bytes is not None and after > source.size_bytes:
            raise BadBlob("a member of the tar file goes beyond its end", at, "truncated")
        source.seek(after)
    raise BadBlob(f"more than {MOST_MEMBERS} members in the tar file", source.at, "too-large")


def _renames(source: Source, size_bytes: int) -> bool:
    """Whether an extended header names the next member; one that is too large to be looked at counts as one."""
    return size_bytes > BLOCK_BYTES or b" path=" in source.peek(size_bytes) or b"=" not in source.peek(size_bytes)


def _path(header: bytes) -> str:
    parts = (header[345:500], header[:100])
    return "/".join(part.split(b"\0")[0].decode("utf-8", "replace") for part in parts if part[:1] != b"\0")


def _octal(field: bytes, at: int) -> int:
    if field[0] & 0x80:  # base 256, for sizes from 8 GiB on
        return int.from_bytes(field, "big") & ((1 << 8 * len(field) - 1) - 1)
    digits = field.strip(b" \0")
    if not digits or not all(digit in b"01234567" for digit in digits):
        raise BadBlob("a size in a header of the tar file is not an octal number", at)
    return int(digits, 8)


def _checksum_holds(header: bytes) -> bool:
    digits = header[_CHECKSUM_AT : _CHECKSUM_AT + _CHECKSUM_BYTES].strip(b" \0")
    if len(header) < BLOCK_BYTES or not digits or not all(digit in b"01234567" for digit in digits):
        return False
    rest = header[:_CHECKSUM_AT] + b" " * _CHECKSUM_BYTES + header[_CHECKSUM_AT + _CHECKSUM_BYTES :]
    return sum(rest) == int(digits, 8)
