# SPDX-License-Identifier: MIT
"""A format of snapshots: how it is recognised and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.source import Source

HEAD_BYTES = 4096
"""How much of the beginning of a file ``recognises`` is shown."""


@dataclass(frozen=True)
class Format:
    """One format. ``name`` is what commands and JSON call it, ``title`` what people call it.

    ``recognises`` is shown the first HEAD_BYTES (unpacked). ``read`` reads the whole; it raises BadBlob for a file that
    is not readable at all, and leaves a Problem in the snapshot for what is only damaged. ``read_folder`` is set for
    formats that are a directory: it returns None for a directory of another kind, and reads only files of fixed names
    below it that are regular ones (no symbolic links). ``read_numbers`` is set for formats whose values can be numbers
    instead of bytes. ``read_selected`` is set for formats that hold several snapshots: it takes an ID or a name.
    """

    name: str
    title: str
    recognises: Callable[[bytes], bool]
    read: Callable[[Source], Snapshot]
    read_folder: Callable[[Path], Snapshot | None] | None = None
    read_numbers: Callable[[Source], Snapshot] | None = None
    read_selected: Callable[[Source, str], Snapshot] | None = None
