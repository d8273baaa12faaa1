# SPDX-License-Identifier: MIT
"""Manifests: the files of a shard, one a line, as JSON or as columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from kvmabi.errors import UsageError

MOST_LINE_CHARS = 1 << 16
KEYS = ("url", "size", "etag")


class Entry(NamedTuple):
    """One file: its URL or path, its size in bytes (None: unknown) and its version ("" if there is none)."""

    url: str
    size_bytes: int | None = None
    etag: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies a result: another version of a file is judged again."""
        return self.url, self.etag


def read(path: str) -> Iterator[Entry]:
    """The entries of a manifest, which is read as it is used. Raises UsageError, also for one without entries.

    A line is a JSON object with ``url``, ``size`` and ``etag``, or these three separated by tabs or commas; the last
    two may be missing. Empty lines and those with a # at the beginning are left out.
    """
    count = 0
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            number = 0
            while line := lines.readline(MOST_LINE_CHARS):
                number += 1
                if not line.endswith("\n") and len(line) == MOST_LINE_CHARS:
                    raise UsageError(f"{path}:{number}: a line has more than {MOST_LINE_CHARS} characters")
                if (text := line.strip()) and not text.startswith("#"):
                    count += 1
                    yield _entry(text, f"{path}:{number}")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if not count:
        raise UsageError(f"{path}: the manifest names no file")


def _entry(text: str, place: str) -> Entry:
    """Parse one line.

    >>> _entry('{"url": "s3://b/1.qemu", "size": 7}', "m:1")
    Entry(url='s3://b/1.qemu', size_bytes=7, etag='')
    >>> _entry("a.blob, 12, v3", "m:2")
    Entry(url='a.blob', size_bytes=12, etag='v3')
    """
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise UsageError(f"{place}: is not a JSON object") from None
        url, size, etag = (found.get(key) for key in KEYS)
    else:
        columns = [column.strip() for column in text.split("\t" if "\t" in text else ",")]
        url, size, etag, *more = (*columns, None, None)[: max(3, len(columns))]
        if more:
            raise UsageError(f"{place}: has {len(columns)} columns where URL, size and etag are expected")
    if not isinstance(url, str) or not url or "\0" in url:
        raise UsageError(f"{place}: names no URL")
    if size is not None and str(size) and not (str(size).isascii() and str(size).isdigit()):
        raise UsageError(f"{place}: {size!r:.40} is not a size in bytes")
    return Entry(url, int(size) if size is not None and str(size) else None, "" if etag is None else str(etag))
