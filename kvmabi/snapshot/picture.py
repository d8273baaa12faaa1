# SPDX-License-Identifier: MIT
"""A picture of a vCPU's register file: what is there, what holds data, and what a report says about it, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from html import escape
from typing import NamedTuple

from kvmabi import regid
from kvmabi.snapshot.snapshot import VcpuSnapshot


class Mark(StrEnum):
    """What a report says about a register; the more severe mark wins."""

    NONE = ""
    DIFFERS = "differs"
    WARNING = "warning"
    ERROR = "error"


WIDTH = 960
MARGIN = 16
CELL = 18
GAP = 3
LINE = 7
"""The height of a vector in the picture."""
BYTE = 1.0
"""The width of a byte of Z and ZA, so that 2048 bits are 256 wide."""
STYLE = """
svg text { font: 12px system-ui, sans-serif; fill: #1a202c }
svg .small { font-size: 10px; fill: #4a5568 }
.room { fill: #f7fafc; stroke: #cbd5e0 }
.zero { fill: #cbd5e0 }
.data { fill: #2b6cb0 }
.absent { fill: none; stroke: #a0aec0; stroke-dasharray: 3 2 }
.differs { fill: #805ad5 }
.warning { fill: #dd6b20 }
.error { fill: #c53030 }
"""
LEGEND = (
    ("data", "holds data"),
    ("zero", "zero"),
    ("absent", "not in this mode"),
    ("differs", "differs"),
    ("warning", "warning"),
    ("error", "error"),
)


class Block(NamedTuple):
    """A part of the picture: its SVG and its size."""

    svg: str
    width: float
    height: float


def draw(vcpu: VcpuSnapshot, marks: Mapping[int, Mark] | None = None) -> str:
    """The picture of one vCPU. ``marks`` are what a report says, by register ID, also of registers that are missing.

    >>> picture = draw(VcpuSnapshot(0, {regid.parse("x0"): bytes(8), regid.parse("svcr"): b"\\2" + bytes(7)}))
    >>> picture.startswith("<svg"), "svcr" in picture
    (True, True)
    """
    found = dict(marks or {})
    families = _families(vcpu, found)
    vectors = [block for block in (_vectors(vcpu, found), _za(vcpu, found)) if block is not None]
    parts: list[str] = []
    y: float = 44
    for title, ids in families:
        block = _cells(vcpu, ids, found)
        parts.append(_placed(title, block, MARGIN, y))
        y += block.height + 36
    x: float = MARGIN
    for title, block in zip(("Z, P and FFR", "ZA and ZT0"), vectors, strict=False):
        parts.append(_placed(title, block, x, y))
        x += block.width + 40
    y += max((block.height for block in vectors), default=-36) + 36
    mode = f"SVCR.SM = {vcpu.sm:d}, SVCR.ZA = {vcpu.za:d}" if vcpu.svcr is not None else "no SME"
    title = f'<text x="{MARGIN}" y="20">vCPU {vcpu.index}: {len(vcpu.registers)} registers, {mode}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{y:g}" '
        f'viewBox="0 0 {WIDTH} {y:g}">'
        f"{title}{''.join(parts)}</svg>"
    )


def _families(vcpu: VcpuSnapshot, marks: Mapping[int, Mark]) -> list[tuple[str, list[int]]]:
    """The registers that are drawn as cells, by family; those that a report misses stand where they would."""
    titles = {
        "core": "Core registers",
        "sysreg": "System registers",
        "demux": "Cache sizes",
        "firmware": "Firmware",
        "firmware_bitmap": "Firmware features",
        "": "Other",
    }
    groups: dict[str, list[int]] = {title: [] for title in titles.values()}
    for id in sorted({*vcpu.registers, *marks}):
        family = regid.decode(id).family
        name = regid.name_of(id)
        if family in ("sve", "sme") and not name.endswith("_vls"):
            continue
        if family == "core" and name[:1] == "v" and name[1:].isdigit():
            continue
        groups[titles.get("sysreg" if family in ("sve", "sme") else family, "Other")].append(id)
    return [(title, ids) for title, ids in groups.items() if ids]


def _cells(vcpu: VcpuSnapshot, ids: Iterable[int], marks: Mapping[int, Mark]) -> Block:
    """Registers as a grid of cells."""
    per_row = (WIDTH - 2 * MARGIN) // (CELL + GAP)
    parts = []
    number = -1
    for number, id in enumerate(ids):
        x, y = number % per_row * (CELL + GAP), number // per_row * (CELL + GAP)
        parts.append(_rect(x, y, CELL, CELL, _kind(vcpu, id, marks), _hover(vcpu, id)))
    return Block("".join(parts), per_row * (CELL + GAP), (number // per_row + 1) * (CELL + GAP))


def _vectors(vcpu: VcpuSnapshot, marks: Mapping[int, Mark]) -> Block | None:
    """Z or V on the left, P and FFR on the right: a line each, as long as its valid bytes."""
    names = [f"z{n}" for n in range(32)]
    if not any(regid.parse(name) in vcpu.registers for name in names):
        names = [f"v{n}" for n in range(32)]
    predicates = [*(f"p{n}" for n in range(16)), "ffr"]
    if not any(regid.parse(name) in vcpu.registers for name in (*names, *predicates)):
        return None
    svg = "".join(_bars(vcpu, names, marks, 30, 256)) + "".join(_bars(vcpu, predicates, marks, 330, 32, 4.0))
    return Block(svg, 330 + 128, 32 * (LINE + 2))


def _za(vcpu: VcpuSnapshot, marks: Mapping[int, Mark]) -> Block | None:
    """ZA as a square with a line a row, ZT0 below it."""
    if vcpu.svcr is None:
        return None
    row_ids = [regid.parse(f"za.h[{row}]") for row in range(256)]
    rows = [row for row, id in enumerate(row_ids) if id in vcpu.registers or id in marks]
    side = max((row + 1 for row in rows), default=0)
    parts = [_rect(0, 0, 256, 256, "room" if side else "absent", "ZA" if side else "ZA: SVCR.ZA = 0")]
    for row in rows:
        parts += _bar(vcpu, row_ids[row], marks, 0, row, 256, 1.0, BYTE)
    parts += _bars(vcpu, ["zt0"], marks, 30, 64, 1.0, y=262)
    return Block("".join(parts), 256, 262 + LINE)


def _bars(
    vcpu: VcpuSnapshot,
    names: Iterable[str],
    marks: Mapping[int, Mark],
    x: float,
    most_bytes: int,
    byte_width: float = BYTE,
    y: float = 0,
) -> Iterator[str]:
    for number, name in enumerate(names):
        top = y + number * (LINE + 2)
        if number % 4 == 0 or name in ("ffr", "zt0"):
            yield f'<text class="small" x="{x - 4}" y="{top + LINE}" text-anchor="end">{name}</text>'
        yield from _bar(vcpu, regid.parse(name), marks, x, top, most_bytes, LINE, byte_width)


def _bar(
    vcpu: VcpuSnapshot,
    id: int,
    marks: Mapping[int, Mark],
    x: float,
    y: float,
    most_bytes: int,
    height: float,
    byte_width: float,
) -> Iterator[str]:
    """A vector: the room it could have, and on it what holds data."""
    kind = _kind(vcpu, id, marks)
    data = vcpu.registers.get(id)
    if height > 1:
        yield _rect(x, y, most_bytes * byte_width, height, "absent" if data is None else "room", _hover(vcpu, id))
    size_bytes = most_bytes if data is None and kind != "absent" else len((data or b"").rstrip(b"\0"))
    if size_bytes:
        yield _rect(x, y, min(size_bytes, most_bytes) * byte_width, height, kind, _hover(vcpu, id))


def _kind(vcpu: VcpuSnapshot, id: int, marks: Mapping[int, Mark]) -> str:
    """The class of a register in the style sheet."""
    if mark := marks.get(id, Mark.NONE):
        return mark
    data = vcpu.registers.get(id)
    if data is None:
        return "absent"
    return "data" if data.strip(b"\0") else "zero"


def _hover(vcpu: VcpuSnapshot, id: int) -> str:
    """What a register's part of the picture says under the pointer."""
    data = vcpu.registers.get(id)
    if data is None:
        return f"{regid.name_of(id)}: absent"
    if len(data) <= 8:
        return f"{regid.name_of(id)} = {int.from_bytes(data, 'little'):#x}"
    return f"{regid.name_of(id)}: {len(data)} bytes, the last one that is not 0 is {len(data.rstrip(bytes(1))) - 1}"


def _rect(x: float, y: float, width: float, height: float, kind: str, hover: str) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect class="{kind}" {place}><title>{escape(hover)}</title></rect>'


def _placed(title: str, block: Block, x: float, y: float) -> str:
    return f'<text x="{x:g}" y="{y:g}">{escape(title)}</text><g transform="translate({x:g} {y + 8:g})">{block.svg}</g>'
