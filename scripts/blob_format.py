# SPDX-License-Identifier: MIT
"""Write docs/reference/blob-format.md, or check that it is current.

    python scripts/blob_format.py [--check]

The tables come from the definition of the format (kvmabi/snapshot/formats/own_layout.py). Exits with 0, or with 1 if
--check finds a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import written_page
from construct import Array, Bytes, Const, FormatField, SizeofError, Struct, Terminated

from kvmabi.snapshot.formats import own, own_layout

PAGE = Path(__file__).parent.parent / "docs/reference/blob-format.md"
NUMBERS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
"""Names of numbers by their size in bytes."""
LISTS = {
    id(own_layout.Text): "text, u16 length",
    id(own_layout.Texts): "u8 count, texts with u8 length",
    id(own_layout.Lengths): "u16 count, u32 each",
}
HEAD = f"""# The format of kvmabi's own snapshots

Written by `scripts/blob_format.py`; do not edit. The definition is `kvmabi/snapshot/formats/own_layout.py`, version
{own_layout.VERSION}. A file of a version that was released is read for ever.

A file is a header with its CRC-32, then a record with its CRC-32 for each vCPU. Numbers are little-endian, texts are
UTF-8 with their length in bytes in front, lists have their count in front. Nothing is aligned, nothing follows the
last record. `CRC` is zlib's CRC-32 (polynomial 0xedb88320) of all bytes of the header or record before it.

Of Z, P, FFR and the rows of ZA only the bytes within the vector length are stored; zeroes follow them in a transfer.
The length follows from the file: of Z it is that of SME if SM is 1 in `svcr`, else that of SVE; of ZA's rows that of
SME. Lengths are those of the vCPU's `sve_vls` and `sme_vls`, else of `sve_bits` and `sme_bits`; if both are unknown,
256 bytes are stored. A register that has other bytes than zero beyond its length, or another size than its ID says,
is an exception and stored as it is: nothing that a snapshot holds is lost.

A reader needs memory for one vCPU. A wrong CRC is reported as `bad-crc`, and what can be read is read.

| limit | |
|---|---:|
| vCPUs | {own.MOST_VCPUS:,} |
| registers of a vCPU | {own.MOST_REGISTERS:,} |
| description, in bytes | {own.MOST_DESCRIPTION_BYTES:,} |
| facts or devices, in bytes | {own.MOST_JSON_BYTES:,} |
| record, in bytes | {own.MOST_WHOLE_BYTES:,} |
"""


def kind(field: Any) -> tuple[str, str]:
    """What a field is, and its size in bytes, "" if that varies."""
    names = {id(struct): name.lower() for name, struct in own_layout.PARTS.items()}
    if id(field) in LISTS:
        return LISTS[id(field)], ""
    if id(field) in names:
        return names[id(field)], size(field)
    if isinstance(field, FormatField):
        return NUMBERS[field.sizeof()], size(field)
    if isinstance(field, Const):
        return f"`{field.value!r}`", size(field)
    if isinstance(field, Array):
        inner, size_bytes = kind(field.subcon)
        return f"array of {inner}", f"{size_bytes} each" if size_bytes else ""
    if isinstance(field, Bytes | Struct):
        return "bytes", ""
    return kind(field.subcon)


def size(field: Any) -> str:
    """The size in bytes of a field, "" if it varies."""
    try:
        return str(field.sizeof())
    except SizeofError:
        return ""


def table(struct: Any) -> Iterator[str]:
    """A struct's fields, a line each; places are given as long as they are fixed."""
    yield "| place | bytes | field | type | |"
    yield "|---:|---:|---|---|---|"
    place: int | None = 0
    for field in struct.subcons:
        if field is Terminated:
            continue
        what, size_bytes = kind(field)
        at = "" if place is None else str(place)
        yield f"| {at} | {size_bytes} | `{field.name}` | {what} | {' '.join(field.docs.split())} |"
        place = place + int(size_bytes) if place is not None and size_bytes.isdigit() else None


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for title, struct in own_layout.PARTS.items():
        lines += [f"## {title}", "", *table(struct), ""]
        if struct in (own_layout.HEADER_BODY, own_layout.VCPU_BODY):
            lines += ["Then `CRC`, u32.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(written_page.main(PAGE, page(), __doc__))
