# SPDX-License-Identifier: MIT
"""What a QEMU migration stream consists of: sections, their numbers on the wire, and how the end of one is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Final, NamedTuple

from kvmabi.snapshot.formats import qemu_ram
from kvmabi.snapshot.formats.qemu_description import Description, Device
from kvmabi.snapshot.snapshot import Problem

MAGIC: Final = b"QEVM"
VERSION: Final = 3
EOF, START, PART, END, FULL, SUBSECTION, DESCRIPTION, CONFIGURATION, COMMAND = range(9)
FOOTER: Final = 0x7E
FOOTER_BYTES: Final = 5
RAM: Final = "ram"
CPU: Final = "cpu"
DESCRIPTION_HEAD_BYTES: Final = 6
SECTION_BYTES: Final = 5 + FOOTER_BYTES
"""What a section has in addition to its name, instance, version and data: kind, ID and footer."""
COMMAND_HEAD: Final = Struct(">HH")
TAIL_BYTES: Final = 1 << 17
"""How much of the end of a file is read first: the sections of one vCPU with ZA and their description."""
PAGE_BITS: Final = (12, 14, 16)
MOST_NAME_BYTES: Final = 255
MOST_CAPABILITIES: Final = 256
MOST_SECTIONS: Final = 1 << 12
MOST_KEPT_BYTES: Final = 16 << 20
"""How much of a stream, RAM apart, is kept at once at most."""
FIRST_WINDOW_BYTES: Final = 1 << 12
WINDOW_BYTES: Final = 1 << 16
OVERLAP_BYTES: Final = 1024
"""How much of a window is looked at again: a footer and the header behind it."""
PADDING_BYTES: Final = 64
"""How many zeros behind the end are enough to take it for one."""
END_MARK: Final = bytes([EOF, DESCRIPTION])


class Section(NamedTuple):
    """A section that holds a device: ``at`` is where its data stand in the stream."""

    name: str
    instance_id: int
    version: int
    at: int
    data: bytes
    device: Device | None = None


@dataclass
class Stream:
    """A stream, cut into sections. ``footers``: whether a footer ends each of them."""

    machine: str = ""
    page_bits: int = 12
    capabilities: tuple[str, ...] = ()
    uuid: str = ""
    blocks: list[qemu_ram.Block] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    description: Description | None = None
    ram_was_read: bool = True
    problems: list[Problem] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    """The name of every section that has begun, by its ID in this stream."""
    ram_began: bool = False
    ram_ended: bool = False
    footers: bool = True

    def problem(self, rule: str, text: str, at: int) -> None:
        """Note what is wrong at a place in the stream."""
        self.problems.append(Problem(rule, text, at))


def footer_of(id: int) -> bytes:
    """The footer of the section with an ID."""
    return bytes([FOOTER]) + id.to_bytes(4, "big")


def find_footer(data: bytes, at: int, id: int, names: Mapping[int, str], *, last: bool) -> int | None:
    """Where the footer of a section stands: the first one behind which another section begins, or the stream ends.

    ``last``: whether the stream ends with ``data``. The data of a section may look like its footer, hence the test.
    """
    footer = footer_of(id)
    while (at := data.find(footer, at)) >= 0:
        if _begins(data, at + FOOTER_BYTES, names, last):
            return at
        at += 1
    return None


def _begins(data: bytes, at: int, names: Mapping[int, str], last: bool) -> bool:
    """Whether a section, or the end of the stream, stands at ``at``."""
    if at >= len(data):
        return last
    kind = data[at]
    if kind == EOF:
        return data.startswith(END_MARK, at) or (last and not data[at : at + PADDING_BYTES].strip(b"\0"))
    if kind in (START, FULL):
        name = data[at + 6 : at + 6 + data[at + 5]] if at + 5 < len(data) else b""
        return len(name) > 0 and len(name) == data[at + 5] and name.isascii() and name.decode().isprintable()
    if kind in (PART, END):
        return int.from_bytes(data[at + 1 : at + 5], "big") in names
    return kind == COMMAND and data[at + 1 : at + 2] == b"\0"
