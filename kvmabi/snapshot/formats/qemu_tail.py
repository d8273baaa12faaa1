# SPDX-License-Identifier: MIT
"""A QEMU migration stream from its end: the description leads back along the chain of sections, so no RAM is read."""

from __future__ import annotations

from collections.abc import Sequence

from kvmabi.snapshot.formats import qemu_ram
from kvmabi.snapshot.formats.qemu_description import MOST_TEXT_BYTES, Device, described
from kvmabi.snapshot.formats.qemu_stream import (
    DESCRIPTION_HEAD_BYTES,
    END_MARK,
    FOOTER,
    FOOTER_BYTES,
    FULL,
    MOST_KEPT_BYTES,
    RAM,
    SECTION_BYTES,
    TAIL_BYTES,
    Section,
    Stream,
)
from kvmabi.snapshot.source import BadBlob, Source


def cut_from_end(source: Source, stream: Stream) -> bool:
    """Follow the chain of described sections back from the end; whether that succeeds to the last byte of it."""
    here, size_bytes = source.at, source.size_bytes or 0
    try:
        sections = _tail(source, size_bytes, size_bytes - here, stream)
    except BadBlob:
        sections = None
    if sections is None:
        stream.description = None
        source.seek(here)
        return False
    stream.sections += sections
    stream.ram_was_read = False
    return True


def _tail(source: Source, size_bytes: int, most_bytes: int, stream: Stream) -> list[Section] | None:
    data = _last(source, size_bytes, min(most_bytes, TAIL_BYTES))
    if b"\0" not in data:
        data = _last(source, size_bytes, min(most_bytes, MOST_TEXT_BYTES + TAIL_BYTES))
    end = find_description(data)
    if end is None:
        return None
    stream.description = described(data[end + DESCRIPTION_HEAD_BYTES :])
    chain_bytes = sum(SECTION_BYTES + len(device.head) + device.size_bytes for device in stream.description.devices)
    due_bytes = chain_bytes + FOOTER_BYTES + 1 + len(data) - end
    if due_bytes > len(data):
        if due_bytes > min(most_bytes, MOST_KEPT_BYTES):
            return None
        end += due_bytes - len(data)
        data = _last(source, size_bytes, due_bytes)
    sections, start = chain(data, size_bytes - len(data), end, stream.description.devices)
    if len(sections) < len(stream.description.devices) or start <= FOOTER_BYTES:
        return None
    footer = data[start - FOOTER_BYTES : start]
    id = int.from_bytes(footer[1:], "big")
    before = stream.names.get(id)  # of a section that has begun: the chain goes back to RAM, not to one left out
    if footer[0] != FOOTER or before is None:
        return None
    if before == RAM and data[start - FOOTER_BYTES - 1] != qemu_ram.END_OF_PART:
        return None
    return sections


def _last(source: Source, size_bytes: int, count_bytes: int) -> bytes:
    source.seek(size_bytes - count_bytes)
    return source.take(count_bytes)


def find_description(data: bytes) -> int | None:
    """Where the end mark before the description stands, if ``data`` end with one that is whole."""
    last_zero = data.rfind(b"\0")  # the text has none, the four bytes of its length have one
    for end in range(max(last_zero - DESCRIPTION_HEAD_BYTES + 1, 0), last_zero + 1):
        length = int.from_bytes(data[end + 2 : end + DESCRIPTION_HEAD_BYTES], "big")
        if data[end : end + 2] == END_MARK and end + DESCRIPTION_HEAD_BYTES + length == len(data):
            return end
    return None


def chain(data: bytes, base: int, end: int, devices: Sequence[Device]) -> tuple[list[Section], int]:
    """The described sections that stand before ``end``, as far back as everything is where it is due."""
    sections: list[Section] = []
    for device in reversed(devices):
        begin = end - FOOTER_BYTES - device.size_bytes
        start = begin - len(device.head) - 5
        if (
            start < 0
            or data[start] != FULL
            or data[end - FOOTER_BYTES] != FOOTER
            or data[start + 1 : start + 5] != data[end - 4 : end]
            or not data.startswith(device.head, start + 5)
            or not device.fits(data, begin)
        ):
            break
        content = data[begin : begin + device.size_bytes]
        sections.append(Section(device.name, device.instance_id, device.version, base + begin, content, device))
        end = start
    sections.reverse()
    return sections, end
