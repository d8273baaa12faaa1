# SPDX-License-Identifier: MIT
"""What is mutated: every sample of the snapshot tests, without RAM pages, so that a mutation hits state."""

from __future__ import annotations

import lzma
import struct
from functools import cache
from itertools import pairwise

from snapshot.formats.test_hostile import log_and_trace
from snapshot.qemu_samples import DATA, MAPPED, names, sample, without_ram

from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import json_, own, text

MAPPED_BLOCK = struct.Struct(">IQQQ")
PAGE_BYTES = 4096
LIBVIRT_HEAD = struct.Struct("<16s19I")
XML = (
    b"<domain type='kvm'><name>guest</name><vcpu>1</vcpu>"
    b"<os><type arch='aarch64' machine='virt-9.2'>hvm</type></os></domain>\0"
)


@cache
def samples() -> dict[str, bytes]:
    """Name to bytes, plain."""
    found = {}
    for path in sorted(DATA.glob("*.xz")):
        name = path.name.removesuffix(".xz")
        if name.endswith(("truth.txt", "truth.json", ".tar")) and not name.startswith("crosvm"):
            continue
        if name.endswith(("truth.txt", "truth.json")) or name.startswith(("kvm-streams", MAPPED, "qemu", "host-")):
            continue
        found[name] = lzma.decompress(path.read_bytes())
    for name in names():
        stream = sample(name)
        found[name] = stream if stream.startswith(b"QFI") else without_ram(stream)
    found[MAPPED] = without_mapped_ram(sample(MAPPED))
    found["trace"], found["log"] = log_and_trace()
    written = opening.read_bytes(found["k612-q100-sve256"])
    found["json"] = json_.write(written).encode()
    found["text"] = text.write(written).encode()
    found["own, two vCPUs"] = own.write(opening.read_bytes(found["q100-v1-smp2-secondary-off"]))
    found["libvirt"] = libvirt_image(found["k612-q111-a57"])
    return found


def without_mapped_ram(stream: bytes) -> bytes:
    """A mapped-ram file whose blocks have one page each."""
    at = stream.index(b"\x03ram") + 4 + 8
    total_at, end = at, int.from_bytes(stream[at : at + 8], "big") & ~(PAGE_BYTES - 1)
    blocks = []
    at += 8
    while end > 0:
        length = stream[at]
        name = stream[at : at + 1 + length]
        at += len(name)
        size_bytes = int.from_bytes(stream[at : at + 8], "big")
        version, page_bytes, bitmap_at, pages_at = MAPPED_BLOCK.unpack_from(stream, at + 8)
        at += 8 + MAPPED_BLOCK.size
        at += pages_at - bitmap_at + size_bytes
        end -= size_bytes
        head = MAPPED_BLOCK.pack(version, page_bytes, 0, 0)
        blocks.append(name + PAGE_BYTES.to_bytes(8, "big") + head + bytes(PAGE_BYTES))
    total = (PAGE_BYTES * len(blocks) | 4).to_bytes(8, "big")
    return stream[:total_at] + total + b"".join(blocks) + stream[at:]


def libvirt_image(stream: bytes) -> bytes:
    """A save image around a stream."""
    return LIBVIRT_HEAD.pack(b"LibvirtQemudSave", 2, len(XML), 1, 0, 0, *[0] * 14) + XML + stream


def cut_points(blob: bytes) -> list[int]:
    """Places where the parts of a blob probably begin: for splices and repeated parts."""
    marks = [0]
    for mark in (b"\x7e\0\0\0", b'{"id"', b"\n", b"VCPU"):
        at = blob.find(mark)
        while at >= 0 and len(marks) < 1000:
            marks.append(at)
            at = blob.find(mark, at + 64)
    marks = sorted({*marks, len(blob)})
    return marks if len(list(pairwise(marks))) > 2 else list(range(0, len(blob) + 1, max(1, len(blob) // 64)))
