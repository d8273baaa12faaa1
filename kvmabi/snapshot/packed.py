# SPDX-License-Identifier: MIT
"""Compressed files: recognised by their first bytes, unpacked as they are read, never more than a limit."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from kvmabi.errors import UsageError
from kvmabi.snapshot.source import BLOCK_BYTES, BadBlob

MAGICS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""The first bytes of a compressed file."""
HEAD_BYTES = max(map(len, MAGICS))
LEAST_LIMIT_BYTES = 256 << 20
MOST_RATIO = 256
"""A file unpacks to LEAST_LIMIT_BYTES, or to this many times its size if that is more; not further."""
MOST_MEMORY_BYTES = 32 << 20
"""What the decompressor of xz or zstd may need: a file asks for it in its header."""
LARGEST_DICTIONARY_BYTES = 64 << 20
"""What the largest preset of xz asks for."""


def kind_of(head: bytes) -> str:
    """The compression of a file that begins with ``head``, "" for none."""
    return next((kind for magic, kind in MAGICS.items() if head.startswith(magic)), "")


def unpacked(raw: BinaryIO, kind: str, size_bytes: int | None) -> BinaryIO:
    """The content of a compressed file of ``size_bytes`` (None: unknown) as a stream that cannot be seeked.

    Reading it raises BadBlob for damage and beyond the limit. Raises UsageError if a library is not installed.
    """
    limit = LEAST_LIMIT_BYTES if size_bytes is None else max(LEAST_LIMIT_BYTES, MOST_RATIO * size_bytes)
    return cast(BinaryIO, io.BufferedReader(_Unpacked(_DECOMPRESSORS[kind](raw), kind, limit), BLOCK_BYTES))


class _Unpacked(io.RawIOBase):
    """Counts what a decompressor returns and turns its errors into BadBlob."""

    def __init__(self, stream: Any, kind: str, limit_bytes: int) -> None:
        self.stream = stream
        self.kind = kind
        self.limit_bytes = limit_bytes
        self.count_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(min(len(buffer), BLOCK_BYTES))
        except EOFError:
            raise BadBlob(f"the {self.kind} data ends too early", self.count_bytes, "truncated") from None
        except (OSError, lzma.LZMAError, zlib.error, MemoryError) as error:
            raise BadBlob(f"the {self.kind} data is damaged: {error}", self.count_bytes) from None
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise BadBlob(f"the zstd data is damaged: {error}", self.count_bytes) from None
        self.count_bytes += len(data)
        if self.count_bytes > self.limit_bytes:
            text = f"unpacks to more than {self.limit_bytes >> 20} MiB: a decompression bomb, or unpack it first"
            raise BadBlob(text, self.count_bytes, "too-large")
        buffer[: len(data)] = data
        return len(data)


class _Xz:
    """An xz stream under a limit of memory, which lzma.open does not take.

    What ``xz -9`` wrote asks for a dictionary beyond the limit, and uses only as much of it as is unpacked: such a
    stream is read as far as that.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self.decompressor = _decompressor(MOST_MEMORY_BYTES)
        self.is_fresh = True
        self.left_bytes: int | None = None

    def read(self, size_bytes: int) -> bytes:
        while True:
            if self.decompressor.eof:
                ahead = self.decompressor.unused_data or self.raw.read(BLOCK_BYTES)
                if not ahead.strip(b"\0"):
                    return b""
                self.decompressor = _decompressor(MOST_MEMORY_BYTES)
                self.is_fresh = True
            else:
                ahead = self.raw.read(BLOCK_BYTES) if self.decompressor.needs_input else b""
                if self.decompressor.needs_input and not ahead:
                    raise EOFError
            data = self._decompressed(ahead, size_bytes)
            if data:
                return data

    def _decompressed(self, ahead: bytes, size_bytes: int) -> bytes:
        try:
            data = self.decompressor.decompress(ahead, size_bytes)
        except lzma.LZMAError:
            if not self.is_fresh or self.left_bytes is not None:
                raise
            self.decompressor = _decompressor(LARGEST_DICTIONARY_BYTES)
            self.left_bytes = MOST_MEMORY_BYTES
            data = self.decompressor.decompress(ahead, size_bytes)
        self.is_fresh = False
        if self.left_bytes is not None:
            self.left_bytes -= len(data)
            if self.left_bytes < 0:
                text = f"unpacking more than {MOST_MEMORY_BYTES >> 20} MiB of it takes too much memory: unpack it first"
                raise BadBlob(text, rule="too-large")
        return data


def _decompressor(memory_bytes: int) -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=memory_bytes + (1 << 20))


def _zstd(raw: BinaryIO) -> Any:
    try:
        import zstandard
    except ImportError:
        raise UsageError("reading zstd needs the Python package zstandard: pip install 'kvmabi[blobs]'") from None
    return zstandard.ZstdDecompressor(max_window_size=MOST_MEMORY_BYTES).stream_reader(raw, read_across_frames=True)


_DECOMPRESSORS: dict[str, Callable[[BinaryIO], Any]] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw, mode="rb"),
    "bzip2": lambda raw: bz2.BZ2File(raw),
    "xz": _Xz,
    "zstd": _zstd,
}
