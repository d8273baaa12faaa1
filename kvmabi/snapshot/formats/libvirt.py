# SPDX-License-Identifier: MIT
"""libvirt's save image: a header, the domain's XML, and a QEMU migration stream, compressed or not.

The XML names the vector lengths that the stream lacks, as far as it lists them. The header is in the byte order of
the host that wrote it.
"""

from __future__ import annotations

from struct import Struct
from typing import BinaryIO, Final, cast

from kvmabi.snapshot import packed
from kvmabi.snapshot.formats import qemu
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.formats.libvirt_xml import Domain, domain_of, sve_bits
from kvmabi.snapshot.snapshot import Fact, Problem, Snapshot
from kvmabi.snapshot.source import BadBlob, Rest, Source

NAME: Final = "libvirt"
COMPLETE: Final = b"LibvirtQemudSave"
PARTIAL: Final = b"LibvirtQemudPart"
VERSIONS: Final = (1, 2)
MOST_DATA_BYTES: Final = 8 << 20
COMPRESSIONS: Final = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")
"""The compression by its number in the header; "sparse" is an uncompressed stream with mapped-ram."""
UNCOMPRESSED: Final = ("raw", "sparse")

_FIELDS: Final = "16s5I56x"
_LITTLE, _BIG = Struct("<" + _FIELDS), Struct(">" + _FIELDS)


def read(source: Source) -> Snapshot:
    """Read a save image. Raises BadBlob if its stream cannot be read."""
    head = source.take(_LITTLE.size)
    _, version, data_bytes, was_running, number, cookie_at = _LITTLE.unpack(head)
    if version not in VERSIONS:
        _, version, data_bytes, was_running, number, cookie_at = _BIG.unpack(head)
    if version not in VERSIONS:
        raise BadBlob("the header of the save image has a version that is not known", 16)
    if data_bytes > MOST_DATA_BYTES:
        raise BadBlob(f"the header of the save image claims {data_bytes} bytes of XML", 20, "too-large")
    if number >= len(COMPRESSIONS):
        raise BadBlob(f"the save image has the compression {number}, which is not known", 28, "unsupported")
    compression = COMPRESSIONS[number]
    partial = head.startswith(PARTIAL)
    problems = []
    if partial:
        text = "the save image is marked as incomplete: libvirt did not finish writing it"
        problems.append(Problem("incomplete", text, 0))
    data = source.take(data_bytes)
    domain = _domain(data, problems)
    if compression == "lzop":
        raise BadBlob("the stream is compressed with lzop: unpack it with lzop -d first", 28, "unsupported")
    try:
        snapshot = qemu.read(_stream(source, compression))
    except BadBlob as error:
        if not partial:
            raise
        text = f"the save image is marked as incomplete, and its stream cannot be read: {error.text}"
        raise BadBlob(text, error.offset, error.rule) from None
    snapshot.format = NAME
    snapshot.problems[:0] = problems
    snapshot.facts |= {
        "compression": compression,
        "was_running": bool(was_running),
        "has_cookie": 0 < cookie_at < data_bytes,
    }
    if domain is not None:
        _add(snapshot, domain)
    return snapshot


def _domain(data: bytes, problems: list[Problem]) -> Domain | None:
    try:
        return domain_of(data.partition(b"\0")[0])
    except BadBlob as error:
        problems.append(Problem(error.rule, error.text, _LITTLE.size + (error.offset or 0)))
        return None


def _stream(source: Source, compression: str) -> Source:
    """The QEMU stream behind the XML."""
    if compression in UNCOMPRESSED:
        return source
    file = packed.unpacked(cast(BinaryIO, Rest(source)), compression, source.size_bytes)
    return Source(source.name, file, compression)


def _add(snapshot: Snapshot, domain: Domain) -> None:
    """Add what the XML says, above all of vector lengths."""
    snapshot.facts["domain"] = domain.facts()
    if snapshot.sve_bits is None:
        snapshot.sve_bits = sve_bits(domain)
    if snapshot.sve_bits is not None and snapshot.sme_bits is not None:
        snapshot.unknown -= {Fact.VECTOR_LENGTHS}


def _recognises(head: bytes) -> bool:
    return head.startswith((COMPLETE, PARTIAL))


FORMAT = Format(NAME, "libvirt save image", _recognises, read)
