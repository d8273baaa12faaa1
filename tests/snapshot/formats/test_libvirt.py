# SPDX-License-Identifier: MIT
"""libvirt's save images: every compression, the domain's XML, what is incomplete or hostile."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
from collections.abc import Callable

import pytest

from kvmabi import regid
from kvmabi.snapshot.formats.libvirt_xml import Domain, domain_of, sve_bits
from kvmabi.snapshot.snapshot import Fact
from kvmabi.snapshot.source import BadBlob
from snapshot import qemu_samples as samples
from snapshot.qemu_samples import KVM, Pipe, read, sample, truth, without_ram

XML = b"""<domain type='kvm'><name>guest</name><uuid>0-1</uuid><vcpu placement='static'>1</vcpu>
<os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>
<cpu mode='host-passthrough'><feature policy='require' name='sve256'/></cpu></domain>"""
COOKIE = b"<cookie/>"
HEAD_BYTES = 92


def _zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


PACKERS: list[tuple[int, Callable[[bytes], bytes]]] = [
    (0, bytes),
    (1, gzip.compress),
    (2, bz2.compress),
    (3, lzma.compress),
    (5, _zstd),
    (6, bytes),
]


def image(
    stream: bytes, number: int = 0, *, xml: bytes = XML, magic: bytes = b"LibvirtQemudSave", order: str = "<"
) -> bytes:
    """A save image with a cookie."""
    data = xml + b"\0" + COOKIE + bytes(100)
    return struct.pack(f"{order}16s5I56x", magic, 2, len(data), 1, number, len(xml) + 1) + data + stream


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize(("number", "packer"), PACKERS)
def test_every_compression(number: int, packer: Callable[[bytes], bytes], kind: type[io.BytesIO]) -> None:
    """The stream behind the XML is read, and the XML adds the vector lengths."""
    snapshot = read(image(packer(without_ram(sample(KVM))), number), kind)
    assert (snapshot.format, snapshot.problems) == ("libvirt", [])
    assert samples.differences(snapshot.vcpus[0], truth()[KVM]["registers"][0]) == []
    assert snapshot.sve_bits == (128, 256)
    assert Fact.VECTOR_LENGTHS not in snapshot.unknown
    assert snapshot.facts["domain"] == {
        **{"type": "kvm", "name": "guest", "uuid": "0-1", "vcpus": "1", "arch": "aarch64", "machine": "virt-10.0"},
        **{"cpu_mode": "host-passthrough", "cpu_features": {"sve256": "require"}},
    }
    assert (snapshot.facts["was_running"], snapshot.facts["has_cookie"]) == (True, True)


def test_ram_of_a_raw_image_is_not_read_and_places_are_the_file_s() -> None:
    """A raw image is a stream with something before it."""
    data = image(sample(KVM))
    snapshot = read(data)
    assert not snapshot.facts["ram_was_read"]
    place = snapshot.vcpus[0].places[regid.parse("x1")]
    assert int.from_bytes(data[place : place + 8], "big") == snapshot.vcpus[0].value("x1")


def test_mapped_ram_behind_the_xml() -> None:
    """The offsets of pages count from the beginning of the file, whatever stood before the stream in it."""
    plain = without_ram(sample(samples.ALL_MODES))
    behind = HEAD_BYTES + len(XML) + 1 + len(COOKIE) + 100
    for start, pack in ((0, bytes), (900, bytes), (behind, lambda stream: image(stream, 6))):
        mapped = mapped_ram(plain, start)
        for kind in (io.BytesIO, Pipe):
            snapshot = read(pack(mapped), kind)
            assert snapshot.vcpus[0].registers == read(plain).vcpus[0].registers
            assert snapshot.problems == []


def mapped_ram(stream: bytes, start: int) -> bytes:
    """The stream with one block of two pages that are mapped behind its entry, in a file where it begins at start."""
    at = stream.index(b"\x01\0\0\0\x01\x03ram")
    capability = b"\x05\x1aconfiguration/capabilities" + struct.pack(">II", 1, 1) + b"\x0amapped-ram"
    end = stream.index(b"\x10\x7e\0\0\0\x01") - 7
    head = stream[: at + 17] + struct.pack(">Q", 8192 | 4) + b"\x01a" + struct.pack(">Q", 8192)
    head = head[:at] + capability + head[at:]
    bitmap_at = start + len(head) + 28
    pages_at = -(-(bitmap_at + 8) // 4096) * 4096
    head += struct.pack(">IQQQ", 1, 4096, bitmap_at, pages_at)
    return head + bytes(pages_at - bitmap_at) + b"\xaa" * 8192 + stream[end:]


def test_big_endian_header() -> None:
    """The header is in the byte order of the host that wrote it."""
    assert read(image(sample(KVM), order=">")).sve_bits == (128, 256)


def test_incomplete() -> None:
    """An image that libvirt did not finish: read as far as it goes, and named."""
    part = image(sample(KVM), magic=b"LibvirtQemudPart")
    assert [problem.rule for problem in read(part).problems] == ["incomplete"]
    with pytest.raises(BadBlob, match="incomplete"):
        read(part[:100_000])


@pytest.mark.parametrize(("number", "rule"), [(4, "unsupported"), (7, "unsupported"), (1 << 31, "unsupported")])
def test_compression_that_is_not_read(number: int, rule: str) -> None:
    """lzop is named; other numbers are not known."""
    with pytest.raises(BadBlob, match="lzop" if number == 4 else "not known") as refused:
        read(image(sample(KVM), number))
    assert refused.value.rule == rule


@pytest.mark.parametrize(
    "xml",
    [
        b"<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><domain>&b;</domain>",
        b"<!DOCTYPE d SYSTEM 'file:///etc/passwd'><domain/>",
        b"<domain>" * 100 + b"</domain>" * 100,
        b"<domain>",
        b"<domain>&unknown;</domain>",
        b"",
        b"\xff\xfe<",
    ],
)
def test_hostile_xml(xml: bytes) -> None:
    """It is reported, and the stream is read without it."""
    snapshot = read(image(sample(KVM), xml=xml))
    assert [problem.rule for problem in snapshot.problems] == ["domain-xml"]
    assert (snapshot.sve_bits, "domain" in snapshot.facts) == (None, False)


def test_xml_too_long() -> None:
    """A length that lies allocates nothing; XML of more than 4 MiB is not parsed."""
    data = image(b"")
    with pytest.raises(BadBlob):
        read(data[:20] + b"\xff\xff\xff\xff" + data[24:])
    with pytest.raises(BadBlob):
        domain_of(b"<a>" + bytes(5 << 20))


@pytest.mark.parametrize(
    ("kind", "features", "lengths"),
    [
        ("kvm", {}, None),
        ("kvm", {"sve": "require"}, None),
        ("kvm", {"sve": "disable"}, ()),
        ("kvm", {"sve128": "require"}, (128,)),
        ("kvm", {"sve512": "require"}, None),
        ("qemu", {"sve512": "require"}, (128, 256, 512)),
        ("qemu", {"sve512": "require", "sve384": "require"}, (128, 256, 384, 512)),
        ("kvm", {"sve512": "force", "sve384": "forbid"}, (128, 256, 512)),
        ("kvm", {"sve512": "require", "sve256": "disable"}, None),
        ("kvm", {"sve256": "optional"}, None),
        ("kvm", {"sve200": "require"}, None),
        ("kvm", {"sve512": "disable"}, None),
    ],
)
def test_vector_lengths(kind: str, features: dict[str, str], lengths: tuple[int, ...] | None) -> None:
    """A set that the features do not determine is not known."""
    assert sve_bits(Domain({"type": kind}, features)) == lengths
