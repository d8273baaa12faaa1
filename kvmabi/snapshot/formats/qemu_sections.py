# SPDX-License-Identifier: MIT
"""The framing of a QEMU migration stream: cuts it into sections, from the front or from the end.

From the end: the description lists every section that is written once the vCPUs have stopped, with its size, so where
the file can be seeked the chain of these sections is followed back from the end, and no RAM is read. The chain is
taken only if every header, subsection and footer stands where it is due, up to the footer of the section before.
From the front: RAM is passed record by record, every other section up to its footer.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from kvmabi.snapshot.formats import qemu_cpu, qemu_ram
from kvmabi.snapshot.formats.qemu_description import Description, Device, described
from kvmabi.snapshot.formats.qemu_stream import (
    COMMAND,
    COMMAND_HEAD,
    CONFIGURATION,
    CPU,
    DESCRIPTION_HEAD_BYTES,
    END,
    END_MARK,
    EOF,
    FIRST_WINDOW_BYTES,
    FOOTER,
    FOOTER_BYTES,
    FULL,
    MAGIC,
    MOST_CAPABILITIES,
    MOST_KEPT_BYTES,
    MOST_NAME_BYTES,
    MOST_SECTIONS,
    OVERLAP_BYTES,
    PAGE_BITS,
    PART,
    RAM,
    START,
    SUBSECTION,
    VERSION,
    WINDOW_BYTES,
    Section,
    Stream,
    find_footer,
    footer_of,
)
from kvmabi.snapshot.formats.qemu_tail import chain, cut_from_end, find_description
from kvmabi.snapshot.source import BadBlob, Source, Truncated

SHOWN: Final = 4
"""How many names a finding lists."""


def cut(source: Source) -> Stream:
    """Cut the stream that begins at the source's position. Raises BadBlob if that is none."""
    stream = Stream()
    begin = source.at
    head = source.take(8)
    version = int.from_bytes(head[4:], "big")
    if not head.startswith(MAGIC):
        raise BadBlob("is not a QEMU migration stream", begin, "unknown-format")
    if version != VERSION:
        rule = "old-version" if version < VERSION else "unsupported"
        raise BadBlob(f"is a QEMU migration stream of version {version}; {VERSION} is read", begin + 4, rule)
    if source.peek(1) == bytes([CONFIGURATION]):
        source.skip(1)
        _configuration(source, stream)
    while (kind := source.peek(1)) and kind[0] != EOF:
        if kind[0] == FULL and stream.ram_ended:
            break
        began = stream.ram_began
        _pass(source, stream)
        if stream.ram_began and not began and source.seekable and cut_from_end(source, stream):
            return stream
    base = source.at
    _cut_rest(source.rest(MOST_KEPT_BYTES), base, stream)
    return stream


def _configuration(source: Source, stream: Stream) -> None:
    """The machine, and in subsections what must be equal at both ends."""
    length = _u32(source)
    if length > MOST_NAME_BYTES:
        raise BadBlob(f"the name of the machine claims {length} bytes", source.at - 4)
    stream.machine = _text(source.take(length))
    while source.peek(1) == bytes([SUBSECTION]):
        at = source.at
        source.skip(1)
        name, version = _name(source), _u32(source)
        if version == 1 and name == "configuration/target-page-bits":
            stream.page_bits = _u32(source)
            if stream.page_bits not in PAGE_BITS:
                raise BadBlob(f"pages of 2^{stream.page_bits} bytes are not arm64's", source.at - 4)
        elif version == 1 and name == "configuration/capabilities":
            count = _u32(source)
            if count > MOST_CAPABILITIES:
                raise BadBlob(f"the configuration claims {count} capabilities", source.at - 4)
            stream.capabilities = tuple(_name(source) for _ in range(count))
        elif version == 1 and name == "configuration/uuid":
            stream.uuid = str(UUID(bytes=source.take(16)))
        else:
            raise BadBlob(f"subsection {name} version {version} of the configuration is not known", at)


def _pass(source: Source, stream: Stream) -> None:
    """Pass over one section from the front; one that is written whole is kept."""
    at = source.at
    kind = source.take(1)[0]
    if kind == COMMAND:
        _, length = COMMAND_HEAD.unpack(source.take(COMMAND_HEAD.size))
        source.skip(length)
        return
    if kind not in (START, PART, END, FULL):
        raise BadBlob(f"no section begins with the byte {kind:#04x}", at)
    id = _u32(source)
    name, instance_id, version = stream.names.get(id, ""), 0, 0
    if kind in (START, FULL):
        name, instance_id, version = _name(source), _u32(source), _u32(source)
        if len(stream.names) == MOST_SECTIONS:
            raise BadBlob(f"more than {MOST_SECTIONS} sections", at, "too-large")
        stream.names[id] = name
    elif not name:
        raise BadBlob(f"a section {id} goes on that has not begun", at)
    begin = source.at
    if name == RAM and kind != FULL:
        if kind == START:
            if version != qemu_ram.VERSION:
                raise BadBlob(f"section ram has the version {version}, not {qemu_ram.VERSION}", at)
            stream.ram_began = True
            stream.blocks = qemu_ram.take_blocks(source, stream.capabilities)
        qemu_ram.skip_records(source, 1 << stream.page_bits)
        stream.ram_ended = kind == END
        _pass_footer(source, id, stream, first=kind == START)
        return
    data = _take_until_footer(source, id, stream, keep=kind == FULL)
    if kind == FULL:
        stream.sections.append(Section(name, instance_id, version, begin, data))


def _pass_footer(source: Source, id: int, stream: Stream, *, first: bool) -> None:
    footer = source.peek(FOOTER_BYTES)
    if footer == footer_of(id):
        source.skip(FOOTER_BYTES)
    elif first and not footer.startswith(bytes([FOOTER])):
        stream.footers = False
    elif stream.footers:
        stream.problem("footer", "section ram has no footer of its own", source.at)
        source.skip(FOOTER_BYTES if footer.startswith(bytes([FOOTER])) else 0)


def _take_until_footer(source: Source, id: int, stream: Stream, *, keep: bool) -> bytes:
    """The data of a section of unknown layout; if it need not be kept, its end only."""
    window_bytes = FIRST_WINDOW_BYTES
    while True:
        data = source.peek(window_bytes)
        last = len(data) < window_bytes
        end = find_footer(data, 0, id, stream.names, last=last)
        if end is not None:
            source.skip(end + FOOTER_BYTES)
            return data[:end]
        if last:
            raise Truncated(f"section {stream.names[id]}", source.at + len(data), 1)
        if not keep:
            source.skip(window_bytes - OVERLAP_BYTES)
            window_bytes = WINDOW_BYTES
        elif window_bytes >= MOST_KEPT_BYTES:
            raise BadBlob(f"section {stream.names[id]} does not end", source.at, "too-large")
        else:
            window_bytes = min(window_bytes * 8, MOST_KEPT_BYTES)


def _cut_rest(rest: bytes, base: int, stream: Stream) -> None:
    """Cut what follows RAM, which stands at ``base`` in the stream."""
    end = find_description(rest)
    if end is not None:
        try:
            stream.description = described(rest[end + DESCRIPTION_HEAD_BYTES :])
        except BadBlob as error:
            stream.problem(error.rule, error.text, base + end)
    if stream.description is not None and stream.footers and end is not None:
        sections, start = chain(rest, base, end, stream.description.devices)
        if not start:
            stream.sections += sections
            _compare(stream, stream.description, base + end)
            return
    _cut_forward(rest, base, stream)
    if stream.description is not None:
        _compare(stream, stream.description, base + len(rest))


def _compare(stream: Stream, description: Description, at: int) -> None:
    """Note which sections only the description or only the stream has. ``at``: where the stream ends."""
    listed = {(device.name, device.instance_id) for device in description.devices}
    there = {(section.name, section.instance_id): section.at for section in stream.sections}
    missing, extra = sorted(listed - there.keys()), sorted(there.keys() - listed)
    if missing:
        text = f"the description has sections that the stream has not: {_names(missing)}"
        stream.problem("description-mismatch", text, at)
    if extra:
        text = f"the stream has sections that the description has not: {_names(extra)}"
        stream.problem("description-mismatch", text, min(there[key] for key in extra))


def _names(keys: list[tuple[str, int]]) -> str:
    names = ", ".join(name for name, _ in keys[:SHOWN])
    return f"{names} and {len(keys) - SHOWN} more" if len(keys) > SHOWN else names


def _cut_forward(rest: bytes, base: int, stream: Stream) -> None:
    """Cut section by section, each by its description, its own layout or its footer, and note what does not fit."""
    devices = {} if stream.description is None else {(d.name, d.instance_id): d for d in stream.description.devices}
    at = 0
    while at < len(rest):
        kind = rest[at]
        if kind == EOF:
            _end(rest, at, base, stream)
            return
        if kind == COMMAND and at + 5 <= len(rest):
            at += 1 + COMMAND_HEAD.size + COMMAND_HEAD.unpack_from(rest, at + 1)[1]
            continue
        begin, id, key, version = at + 5, int.from_bytes(rest[at + 1 : at + 5], "big"), ("", 0), 0
        if kind in (START, FULL) and at + 6 <= len(rest):
            begin = at + 14 + rest[at + 5]
            encoded = rest[at + 6 : begin - 8]
            instance_id, version = (int.from_bytes(rest[begin - n : begin - n + 4], "big") for n in (8, 4))
            key = _text(encoded), instance_id
            stream.names[id] = key[0]
        if kind not in (START, PART, END, FULL) or id not in stream.names or len(stream.names) > MOST_SECTIONS:
            stream.problem("malformed", f"no section begins with the byte {kind:#04x}", base + at)
            return
        if begin > len(rest):
            break
        device = devices.get(key) if kind == FULL else None
        size_bytes = _size(rest, begin, id, key[0], device, base, stream)
        end = len(rest) if size_bytes is None else begin + size_bytes
        if kind == FULL:
            fitting = device if device is not None and device.size_bytes == size_bytes else None
            stream.sections.append(Section(*key, version, base + begin, rest[begin:end], fitting))
        if size_bytes is None:
            stream.problem("truncated", f"section {stream.names[id]} does not end", base + len(rest))
            return
        at = end + (FOOTER_BYTES if stream.footers else 0)
    stream.problem("truncated", "the stream ends without an end mark", base + len(rest))


def _size(rest: bytes, begin: int, id: int, name: str, device: Device | None, base: int, stream: Stream) -> int | None:
    """The size of a section's data; None if its end is not found."""

    def ends(size_bytes: int | None) -> bool:
        if size_bytes is None or begin + size_bytes > len(rest):
            return False
        return not stream.footers or rest.startswith(footer_of(id), begin + size_bytes)

    if device is not None:
        if ends(device.size_bytes) and device.fits(rest, begin):
            return device.size_bytes
        text = f"section {name} is not what the description says: it is read without it"
        stream.problem("description-mismatch", text, base + begin)
    if name == CPU:
        size_bytes = qemu_cpu.size_of(rest, begin)
        if ends(size_bytes):
            return size_bytes
    if not stream.footers:
        return None
    footer = find_footer(rest, begin, id, stream.names, last=True)
    return None if footer is None else footer - begin


def _end(rest: bytes, at: int, base: int, stream: Stream) -> None:
    """What follows the end mark: nothing, or the description."""
    if rest[at : at + 2] != END_MARK:
        if rest[at + 1 :].strip(b"\0"):
            stream.problem("trailing-bytes", f"{len(rest) - at - 1} bytes follow the end mark", base + at + 1)
        return
    begin = at + DESCRIPTION_HEAD_BYTES
    length = int.from_bytes(rest[at + 2 : begin], "big")
    if begin + length > len(rest):
        stream.problem("truncated", "the description ends too early", base + len(rest))
    elif rest[begin + length :].strip(b"\0"):
        stream.problem("trailing-bytes", "bytes follow the description", base + begin + length)
    elif begin + length < len(rest) and stream.description is None:
        try:
            stream.description = described(rest[begin : begin + length])
        except BadBlob as error:
            stream.problem(error.rule, error.text, base + at)


def _u32(source: Source) -> int:
    return int.from_bytes(source.take(4), "big")


def _name(source: Source) -> str:
    return _text(source.take(source.take(1)[0]))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
