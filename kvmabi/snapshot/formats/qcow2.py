# SPDX-License-Identifier: MIT
"""Internal snapshots of a qcow2 image (``savevm``): the VM state is a QEMU migration stream behind the guest's disk.

All integers are big-endian. The state is read through the L1 table of its snapshot. Extended L2 entries, external
data files, encryption and compressed clusters are not read.
https://www.qemu.org/docs/master/interop/qcow2.html
"""

from __future__ import annotations

import io
from struct import Struct
from typing import Any, BinaryIO, Final, NamedTuple, cast

from kvmabi.snapshot.formats import qemu
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.source import MOST_WHOLE_BYTES, BadBlob, Source

MAGIC: Final = b"QFI\xfb"
NAME: Final = "qcow2"
MOST_SNAPSHOTS: Final = 4096
MOST_EXTRA_BYTES: Final = 1024
MOST_L1_BYTES: Final = 1 << 20
KEPT_L2_TABLES: Final = 4
ADVICE: Final = "load the snapshot with qemu-system-aarch64 -loadvm and write it with the command migrate"

_HEADER: Final = Struct(">4sIQIIQIIQQIIQ")
_VERSION_3: Final = Struct(">QQQII")
_ENTRY: Final = Struct(">QIHHIIQII")
_U64: Final = Struct(">Q")
_OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED: Final = 1 << 62
_ALL_ZERO: Final = 1
_CLUSTER_BITS: Final = range(9, 22)
_INCOMPATIBLE: Final = {1 << 2: "an external data file", 1 << 4: "extended L2 entries"}
_HARMLESS: Final = 1 << 0 | 1 << 1 | 1 << 3
"""Incompatible features that do not change where data are: dirty, corrupt, compression type."""


class Saved(NamedTuple):
    """A snapshot in the image. ``state_bytes`` is 0 for one without a VM state."""

    id: str
    name: str
    seconds: int
    l1_at: int
    l1_entries: int
    disk_bytes: int
    state_bytes: int


def read(source: Source) -> Snapshot:
    """Read the VM state of the last snapshot that has one. Raises BadBlob if there is none, or it is not readable."""
    return read_selected(source)


def read_selected(source: Source, selected: str | None = None) -> Snapshot:
    """Read the VM state of a snapshot, by its ID or name; of the last one that has a VM state without a selection."""
    if not source.seekable:
        source = _kept(source)
    header = _HEADER.unpack(source.take(_HEADER.size))
    _, version, _, _, cluster_bits, disk_bytes, encryption, _, _, _, _, count, snapshots_at = header
    if version not in (2, 3):
        raise BadBlob(f"a qcow2 image of version {version} is not known", 4)
    if cluster_bits not in _CLUSTER_BITS:
        raise BadBlob(f"clusters of 2^{cluster_bits} bytes are not possible", 20)
    if encryption:
        raise BadBlob(f"the qcow2 image is encrypted: {ADVICE}", 32, "unsupported")
    if version == 3:
        features = _VERSION_3.unpack(source.take(_VERSION_3.size))[0]
        for bit, what in _INCOMPATIBLE.items():
            if features & bit:
                raise BadBlob(f"the qcow2 image has {what}: {ADVICE}", _HEADER.size, "unsupported")
        if features & ~_HARMLESS:
            raise BadBlob(f"the qcow2 image has unknown features {features:#x}: {ADVICE}", _HEADER.size, "unsupported")
    if count > MOST_SNAPSHOTS:
        raise BadBlob(f"the qcow2 image claims {count} snapshots", 60, "too-large")
    saved = _snapshots(source, snapshots_at, count, disk_bytes)
    chosen = _chosen(saved, selected)
    state = cast(BinaryIO, VmState(source, cluster_bits, chosen))
    snapshot = qemu.read(Source(source.name, state, source.packed))
    snapshot.format = NAME
    snapshot.facts["snapshots"] = [_fact(one, one is chosen) for one in saved]
    return snapshot


def _kept(source: Source) -> Source:
    """An image that cannot be seeked, in memory."""
    try:
        return Source(source.name, cast(BinaryIO, io.BytesIO(source.rest())), source.packed)
    except BadBlob:
        text = f"is a qcow2 image of more than {MOST_WHOLE_BYTES >> 20} MiB that cannot be seeked: unpack it first"
        raise BadBlob(text, 0, "too-large") from None


def _snapshots(source: Source, at: int, count: int, disk_bytes: int) -> list[Saved]:
    saved = []
    for _ in range(count):
        source.seek(at)
        entry = _ENTRY.unpack(source.take(_ENTRY.size))
        l1_at, l1_entries, id_bytes, name_bytes, seconds, _, _, state_bytes, extra_bytes = entry
        if extra_bytes > MOST_EXTRA_BYTES:
            raise BadBlob(f"a snapshot's entry claims {extra_bytes} more bytes", at)
        extra = source.take(extra_bytes)
        if extra_bytes >= 8:
            state_bytes = _U64.unpack_from(extra)[0]
        disk = _U64.unpack_from(extra, 8)[0] if extra_bytes >= 16 else disk_bytes
        id, name = (source.take(size).decode("utf-8", "backslashreplace") for size in (id_bytes, name_bytes))
        saved.append(Saved(id, name, seconds, l1_at, l1_entries, disk, state_bytes))
        at = source.at + -source.at % 8
    return saved


def _chosen(saved: list[Saved], selected: str | None) -> Saved:
    with_state = [one for one in saved if one.state_bytes]
    if not with_state:
        held = f"{len(saved)} snapshots, none of them with a VM state" if saved else "no snapshot"
        raise BadBlob(f"the qcow2 image has {held}", rule="no-vcpu")
    if selected is None:
        return with_state[-1]
    found = [one for one in with_state if one.id == selected] or [one for one in with_state if one.name == selected]
    if not found:
        names = ", ".join(f"{one.id} ({one.name})" for one in with_state[:16])
        raise BadBlob(f"the qcow2 image has no snapshot {selected!r} with a VM state; it has {names}")
    return found[-1]


def _fact(saved: Saved, is_read: bool) -> dict[str, Any]:
    return {
        "id": saved.id,
        "name": saved.name,
        "seconds": saved.seconds,
        "vm_state_bytes": saved.state_bytes,
        "read": is_read,
    }


class VmState(io.RawIOBase):
    """The VM state of a snapshot as a file: clusters are looked up as they are read."""

    def __init__(self, source: Source, cluster_bits: int, saved: Saved) -> None:
        self.source = source
        self.cluster_bits = cluster_bits
        self.size_bytes = saved.state_bytes
        self.at = 0
        table_bits = 2 * cluster_bits - 3
        self.base = -(-saved.disk_bytes >> table_bits) << table_bits
        first = self.base >> table_bits
        last = self.base + self.size_bytes - 1 >> table_bits
        if last >= saved.l1_entries or 8 * (last - first + 1) > MOST_L1_BYTES:
            raise BadBlob("the VM state lies behind the end of its L1 table", rule="truncated")
        source.seek(saved.l1_at + 8 * first)
        data = source.take(8 * (last - first + 1))
        self.l1 = Struct(f">{len(data) // 8}Q").unpack(data)
        self.l2: dict[int, bytes] = {}

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, which may lie behind the end."""
        self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size_bytes}[whence])
        return self.at

    def read(self, size_bytes: int = -1) -> bytes:
        """The next bytes; fewer at the end. Raises BadBlob where the image is damaged."""
        left_bytes = max(self.size_bytes - self.at, 0)
        wanted_bytes = left_bytes if size_bytes < 0 else min(size_bytes, left_bytes)
        parts = []
        while wanted_bytes:
            within = (self.base + self.at) & ((1 << self.cluster_bits) - 1)
            part = self._cluster(self.at, within, min(wanted_bytes, (1 << self.cluster_bits) - within))
            parts.append(part)
            self.at += len(part)
            wanted_bytes -= len(part)
        return b"".join(parts)

    def _cluster(self, at: int, within: int, size_bytes: int) -> bytes:
        """Bytes of one cluster: zeros if it is not allocated. Raises BadBlob if it is compressed or lies outside."""
        entry = self._entry(self.base + at >> self.cluster_bits)
        if entry & _COMPRESSED:
            raise BadBlob(f"a cluster of the VM state is compressed: {ADVICE}", rule="unsupported")
        if not entry & _OFFSET_MASK or entry & _ALL_ZERO:
            return bytes(size_bytes)
        self.source.seek((entry & _OFFSET_MASK) + within)
        return self.source.take(size_bytes)

    def _entry(self, number: int) -> int:
        """The L2 entry of a cluster of the guest's address space; 0 if it has no table."""
        table_bits = self.cluster_bits - 3
        first = self.base >> self.cluster_bits + table_bits
        l2_at = self.l1[(number >> table_bits) - first] & _OFFSET_MASK
        if not l2_at:
            return 0
        table = self.l2.get(l2_at)
        if table is None:
            if len(self.l2) == KEPT_L2_TABLES:
                self.l2.clear()
            self.source.seek(l2_at)
            table = self.l2[l2_at] = self.source.take(8 << table_bits)
        entry: int = _U64.unpack_from(table, 8 * (number & ((1 << table_bits) - 1)))[0]
        return entry


FORMAT = Format(
    NAME, "qcow2 image with a VM state", lambda head: head.startswith(MAGIC), read, read_selected=read_selected
)
