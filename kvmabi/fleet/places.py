# SPDX-License-Identifier: MIT
"""Opens what a manifest names: files of this machine, and URLs through fsspec, which are read in ranges."""

from __future__ import annotations

from typing import BinaryIO, cast
from urllib.parse import unquote, urlsplit

from kvmabi.errors import UsageError

RANGE_BYTES = 256 << 10
"""How much of a remote file is read at once: a vCPU's section and the description behind it."""


def path_of(url: str) -> str | None:
    """The path that a URL names on this machine; None for a URL of another kind.

    >>> path_of("file:///a%20b"), path_of("dir/x.blob"), path_of("s3://bucket/x")
    ('/a b', 'dir/x.blob', None)
    """
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def open_url(url: str) -> BinaryIO:
    """Open a URL that is not a path, to be read in ranges. Raises OSError; UsageError if fsspec knows no such URLs."""
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"{url}: reading URLs needs the Python package fsspec: pip install 'kvmabi[fleet]'") from None
    try:
        opened = fsspec.open(url, "rb", block_size=RANGE_BYTES, cache_type="readahead").open()
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: {error}") from None
    return cast(BinaryIO, opened)
