# SPDX-License-Identifier: MIT
"""qcow2 images with a VM state: which snapshot is read, and images that are not."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from cli.conftest import Kvmabi, kvmabi, one_line

from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import qcow2
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.source import BadBlob, Source
from snapshot import qemu_samples as samples
from snapshot.qemu_samples import KVM, SAVEVM, Pipe, read, sample, truth, without_ram

__all__ = ["kvmabi"]
CLUSTER_BITS = 12
CLUSTER_BYTES = 1 << CLUSTER_BITS
DISK_BYTES = 1 << 20
STATE_AT = 1 << 21
"""Where the VM state begins: the first address behind the disk that a table of level 1 leads to."""
HEADER_BYTES = 104


def image(
    states: list[tuple[str, bytes | None]], *, version: int = 3, extra: bool = True, features: int = 0, flags: int = 0
) -> bytes:
    """An image of a disk of 1 MiB with a snapshot for each state, None for one of the disk only."""
    clusters: list[bytes] = [b""]

    def add(data: bytes) -> int:
        first = len(clusters)
        clusters.extend(
            data[at : at + CLUSTER_BYTES].ljust(CLUSTER_BYTES, b"\0") for at in range(0, len(data), CLUSTER_BYTES)
        )
        return first * CLUSTER_BYTES

    entries = b""
    for number, (name, state) in enumerate(states, 1):
        l1_at = 0
        if state:
            count = -(-len(state) // CLUSTER_BYTES)
            data_at = add(state)
            table = struct.pack(f">{count}Q", *(data_at + n * CLUSTER_BYTES | 1 << 63 | flags for n in range(count)))
            l1_at = add(struct.pack(">2Q", 0, add(table) | 1 << 63))
        size = len(state or b"")
        more = struct.pack(">QQ", size, DISK_BYTES) if extra else b""
        id = str(number).encode()
        entry = struct.pack(">QIHHIIQII", l1_at, 2, len(id), len(name), number, 0, 0, 0 if extra else size, len(more))
        entry += more + id + name.encode()
        entries += entry + bytes(-len(entry) % 8)
    at = add(entries) if entries else 0
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        *(b"QFI\xfb", version, 0, 0, CLUSTER_BITS, DISK_BYTES, 0, 0, 0, 0, 0, len(states), at),
    )
    clusters[0] = (header + struct.pack(">QQQII", features, 0, 0, 4, HEADER_BYTES)).ljust(CLUSTER_BYTES, b"\0")
    return b"".join(clusters)


def selected(data: bytes, name: str | None) -> Snapshot:
    """The snapshot of a name or ID."""
    return qcow2.read_selected(Source("blob", cast(BinaryIO, io.BytesIO(data))), name)


STATE = without_ram(sample(KVM))
OTHER = without_ram(sample(samples.SMALL))


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_savevm(kind: type[io.BytesIO]) -> None:
    """The image that QEMU wrote: its only snapshot."""
    snapshot = read(sample(SAVEVM), kind)
    assert snapshot.format == "qcow2"
    assert samples.differences(snapshot.vcpus[0], truth()[SAVEVM]["registers"][0]) == []
    assert [(one["vm_state_bytes"], one["read"]) for one in snapshot.facts["snapshots"]] == [(579_762, True)]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("extra", [True, False])
def test_the_last_one_with_a_state_is_read(version: int, extra: bool) -> None:
    """All are listed; one without a VM state is passed over."""
    data = image([("old", OTHER), ("new", STATE), ("disk only", None)], version=version, extra=extra)
    snapshot = read(data)
    assert snapshot.vcpus[0].registers == read(STATE).vcpus[0].registers
    assert [(one["name"], one["read"]) for one in snapshot.facts["snapshots"]] == [
        *(("old", False), ("new", True), ("disk only", False)),
    ]


@pytest.mark.parametrize("name", ["old", "1"])
def test_selection(name: str) -> None:
    """By name or by ID."""
    data = image([("old", OTHER), ("new", STATE)])
    assert selected(data, name).vcpus[0].registers == read(OTHER).vcpus[0].registers


@pytest.mark.parametrize("name", ["old", "1"])
def test_selection_on_the_command_line(kvmabi: Kvmabi, tmp_path: Path, name: str) -> None:
    """--snapshot chooses for every command that reads one; without it, the last one is read."""
    path = tmp_path / "disk.qcow2"
    path.write_bytes(image([("old", OTHER), ("new", STATE)]))
    read_as = {}
    for words in ((), ("--snapshot", name)):
        converted = tmp_path / f"guest{len(words)}.json"
        kvmabi("blob", "convert", str(path), "--to", "json", "--out", str(converted), *words)
        read_as[words] = opening.read(converted).vcpus[0].registers
    assert read_as[()] == read(STATE).vcpus[0].registers
    assert read_as["--snapshot", name] == read(OTHER).vcpus[0].registers
    for command in ("info", "validate"):
        assert kvmabi("blob", command, str(path), "--snapshot", name).status < 2


def test_selection_that_cannot_be(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """No such snapshot, a file or folder that holds one only, a manifest: one line each."""
    disk, stream = tmp_path / "disk.qcow2", tmp_path / "stream"
    disk.write_bytes(image([("old", OTHER)]))
    stream.write_bytes(STATE)
    one_line(kvmabi("blob", "info", str(disk), "--snapshot", "new"), 2, "no snapshot 'new'", "1 (old)")
    one_line(kvmabi("blob", "info", str(stream), "--snapshot", "1"), 2, "holds several")
    one_line(kvmabi("blob", "validate", str(tmp_path), "--snapshot", "1"), 2, "is a directory")
    one_line(kvmabi("blob", "validate", "--manifest", "m", "--snapshot", "1"), 2, "not in those of a manifest")


@pytest.mark.parametrize("name", ["disk", "none"])
def test_selection_of_none(name: str) -> None:
    """The error lists those that can be selected."""
    with pytest.raises(BadBlob, match=r"1 \(old\)"):
        selected(image([("old", OTHER), ("disk", None)]), name)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (image([]), "no snapshot"),
        (image([("disk", None)]), "none of them with a VM state"),
        (image([("a", STATE)], features=1 << 4), "extended L2"),
        (image([("a", STATE)], features=1 << 2), "external data"),
        (image([("a", STATE)], features=1 << 9), "unknown features"),
        (image([("a", STATE)], flags=1 << 62), "compressed"),
        (image([("a", STATE)], version=4), "version 4"),
    ],
)
def test_images_that_are_not_read(data: bytes, words: str) -> None:
    """Each is refused in a sentence; dirty and corrupt images are read."""
    with pytest.raises(BadBlob, match=words):
        read(data)
    assert read(image([("a", STATE)], features=3)).problems == []


@pytest.mark.parametrize("change", [(20, 0), (20, 63), (32, 1), (60, 1 << 31), (64, 1 << 31), (24, 1 << 31)])
def test_damaged_header(change: tuple[int, int]) -> None:
    """Cluster size, encryption, number and place of snapshots, size of the disk."""
    at, value = change
    data = image([("a", STATE)], extra=False)
    with pytest.raises(BadBlob):
        read(data[:at] + value.to_bytes(4, "big") + data[at + 4 :])


def test_truncated_anywhere() -> None:
    """Each cluster is missed."""
    data = image([("a", STATE)])
    for size in range(HEADER_BYTES, len(data) - CLUSTER_BYTES, CLUSTER_BYTES // 2):
        with pytest.raises(BadBlob):
            read(data[:size])
