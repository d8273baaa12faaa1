# SPDX-License-Identifier: MIT
"""Opens a snapshot in any format: the content decides, never the name."""

from __future__ import annotations

import io
import os
import select
import stat
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

from kvmabi.errors import UsageError
from kvmabi.snapshot import packed
from kvmabi.snapshot.formats.format import HEAD_BYTES, Format
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.source import BadBlob, Rest, Source

MODULES: tuple[str, ...] = (
    *("own", "qemu", "libvirt", "qcow2", "firecracker"),
    *("crosvm", "cloud_hypervisor", "trace", "json_", "text"),
)
"""The modules of kvmabi/snapshot/formats, in the order in which they are asked; the vaguest last."""
ONE_ONLY = "only an image with internal snapshots (qcow2) holds several"
MOST_LAYERS = 2
WAIT_SECONDS = 10
"""How long a named pipe may have no writer, or no data."""


@cache
def formats() -> tuple[Format, ...]:
    """Every format that can be read."""
    return tuple(import_module(f"kvmabi.snapshot.formats.{name}").FORMAT for name in MODULES)


def read(path: str | Path, *, numbers: bool = False, selected: str | None = None) -> Snapshot:
    """Read the snapshot in a file or directory. Raises UsageError if it is not one, is empty or cannot be read.

    ``numbers``: values in text are numbers, with the highest digit first, instead of bytes as they are transferred.
    ``selected``: the ID or name of a snapshot in a file that holds several (None: the last).
    """
    try:
        if os.path.isdir(path):
            if selected is not None:
                raise UsageError(f"{path}: is a directory: {ONE_ONLY}")
            return _checked(str(path), _folder(Path(path)))
        with _opened(path) as file:
            return _checked(str(path), read_stream(file, str(path), numbers=numbers, selected=selected))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except BadBlob as error:
        place = "" if error.offset is None else f" at byte {error.offset:#x}"
        raise UsageError(f"{path}: {error.text}{place}") from None


def _opened(path: str | Path) -> BinaryIO:
    """The file, whose reads wait for data; but not for a pipe that nobody writes to. Raises OSError, BadBlob."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        if not waiting.poll(WAIT_SECONDS * 1000):
            file.close()
            raise BadBlob(f"is a pipe that nothing was written to for {WAIT_SECONDS} seconds", rule="unreadable")
    os.set_blocking(descriptor, True)
    return file


def read_bytes(data: bytes, name: str = "blob") -> Snapshot:
    """Read the snapshot in ``data``. Raises BadBlob."""
    return read_stream(cast(BinaryIO, io.BytesIO(data)), name)


def read_stream(raw: BinaryIO, name: str, *, numbers: bool = False, selected: str | None = None) -> Snapshot:
    """Read the snapshot in an open file, see ``read``. Raises BadBlob for any that is not readable."""
    source = Source(name, raw)
    for _ in range(MOST_LAYERS):
        kind = packed.kind_of(source.peek(packed.HEAD_BYTES))
        if not kind:
            break
        stream = cast(BinaryIO, Rest(source))
        source = Source(name, packed.unpacked(stream, kind, source.size_bytes), kind)
    head = source.peek(HEAD_BYTES)
    if not head:
        raise BadBlob("is empty", rule="empty")
    for format in formats():
        if format.recognises(head):
            if selected is not None:
                if format.read_selected is None:
                    raise UsageError(f"{name}: is {format.title}: {ONE_ONLY}")
                return format.read_selected(source, selected)
            if numbers and format.read_numbers is None:
                raise UsageError(f"{name}: is {format.title}: only values in text can be numbers")
            return format.read_numbers(source) if numbers and format.read_numbers else format.read(source)
    raise BadBlob("is not a snapshot in any format that kvmabi reads", 0, "unknown-format")


def _folder(path: Path) -> Snapshot:
    if not any(path.iterdir()):
        raise BadBlob("is an empty directory", rule="empty")
    for format in formats():
        snapshot = format.read_folder(path) if format.read_folder else None
        if snapshot is not None:
            return snapshot
    raise BadBlob("is a directory, but not one that a VMM's snapshot is in", rule="unknown-format")


def _checked(name: str, snapshot: Snapshot) -> Snapshot:
    if not any(vcpu.registers for vcpu in snapshot.vcpus):
        raise UsageError(f"{name}: {snapshot.format}: holds no vCPU")
    return snapshot
