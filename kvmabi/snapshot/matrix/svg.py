# SPDX-License-Identifier: MIT
"""The vector lengths of a fleet as an SVG picture: a row for each host, a column for each length."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from kvmabi.snapshot.lengths import Lengths
from kvmabi.snapshot.matrix.common import Common
from kvmabi.snapshot.matrix.commonlengths import CommonLengths

ROW, CHAR, PAD, CELL, GAP = 24, 7.3, 12, 52, 36
STYLE: Final = (
    "text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1a202c}"
    ".h{font-weight:bold}.dim{fill:#4a5568}.m{text-anchor:middle}"
    ".has{fill:#bee3f8;stroke:#2b6cb0}.guest{fill:#2f855a;stroke:#22543d}.lacks{fill:#fff5f5;stroke:#c53030}"
    ".extra{fill:#feb2b2;stroke:#c53030}.none{fill:#f7fafc;stroke:#e2e8f0}"
    ".mark{fill:none;stroke:#ffffff;stroke-width:2}.cross{fill:none;stroke:#c53030;stroke-width:2}"
)
LEGEND: Final = (
    ("guest", "in the guest's set"),
    ("has", "the host has it"),
    ("extra", "cannot be left out"),
    ("lacks", "the guest needs it"),
)
"""The kinds of cells, and what the legend says of each."""


def svg(matrix: Common) -> str:
    """The picture, self-contained.

    A cell is in the guest's set (the one that was asked for, else the widest), or another one that the host has, or
    the length breaks the set: the host lacks it, or has it below the largest and cannot leave it out.
    """
    panels = [one for one in (matrix.sve, matrix.sme) if any(one.sets.values()) or one.guest]
    names = [member.name for member in matrix.members]
    label = max(len(name) for name in [*names, "guest that was asked for"]) * CHAR + 2 * PAD
    columns = {one.extension: _columns(one) for one in panels}
    most = max((len(bits) for bits in columns.values()), default=1)
    legend = sum(len(words) * CHAR + 50 for _, words in LEGEND)
    width = max(label + most * CELL, legend) + 2 * PAD
    parts: list[str] = []
    y = 22.0
    for one in panels:
        y = _panel(parts, one, columns[one.extension], label, y) + GAP
    if panels:
        _legend(parts, y)
    else:
        parts.append(_text(PAD, y, "no host has SVE or SME", "h"))
    title = "Vector lengths of a fleet"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y + ROW:.0f}" role="img">'
    back = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{title}</title>", f"<style>{STYLE}</style>", back, *parts, "</svg>"]) + "\n"


def _columns(one: CommonLengths) -> Lengths:
    """Every length that a host has or the guest asks for."""
    bits = {length for known in one.sets.values() for length in known or ()}
    return tuple(sorted(bits | set(one.guest or ())))


def _panel(parts: list[str], one: CommonLengths, columns: Lengths, label: float, y: float) -> float:
    """One extension's rows; returns the y below them."""
    guest = one.widest if one.guest is None else one.guest
    parts.append(_text(PAD, y, f"{one.extension.upper()}, bits", "h"))
    parts += [_text(label + CELL * (n + 0.5), y, str(bits), "h m") for n, bits in enumerate(columns)]
    for name, known in one.sets.items():
        y += ROW
        parts.append(_text(PAD, y, name))
        if known is None:
            parts.append(_text(label, y, "not known", "dim"))
            continue
        broken = {problem.bits: problem.extra for problem in one.problems(guest) if problem.host == name}
        for n, bits in enumerate(columns):
            parts += _cell(label + CELL * n, y, _kind(bits, known, guest, broken), f"{name}: {bits} bits")
    for title, bits_of in (("shared by all", one.shared), ("widest guest", one.widest), *_asked(one)):
        y += ROW
        parts.append(_text(PAD, y, title, "dim"))
        if not bits_of:
            parts.append(_text(label, y, "none", "dim"))
        for n, bits in enumerate(columns if bits_of else ()):
            kind = "none" if bits not in bits_of else "has" if title == "shared by all" else "guest"
            parts += _cell(label + CELL * n, y, kind, f"{title}: {bits} bits")
    return y


def _asked(one: CommonLengths) -> Iterator[tuple[str, Lengths]]:
    if one.guest is not None:
        yield "guest that was asked for", one.guest


def _kind(bits: int, known: Lengths, guest: Lengths, broken: dict[int, bool]) -> str:
    """What a host's cell shows."""
    if bits in broken:
        return "extra" if broken[bits] else "lacks"
    if bits not in known:
        return "none"
    return "guest" if bits in guest else "has"


def _cell(x: float, y: float, kind: str, title: str) -> Iterator[str]:
    place = f'x="{x + 3:.0f}" y="{y - 15:.0f}" width="{CELL - 6}" height="{ROW - 5}" rx="3"'
    yield f'<rect {place} class="{kind}"><title>{escape(title)}</title></rect>'
    middle = x + CELL / 2
    if kind == "guest":
        yield f'<path class="mark" d="M{middle - 5:.0f} {y - 6:.0f}l4 4l7 -8"/>'
    if kind in ("extra", "lacks"):
        yield f'<path class="cross" d="M{middle - 4:.0f} {y - 10:.0f}l8 8m0 -8l-8 8"/>'


def _legend(parts: list[str], y: float) -> None:
    x = float(PAD)
    for kind, words in LEGEND:
        parts.append(f'<rect x="{x:.0f}" y="{y - 11:.0f}" width="14" height="14" rx="3" class="{kind}"/>')
        parts.append(_text(x + 20, y, words, "dim"))
        x += len(words) * CHAR + 50


def _text(x: float, y: float, words: str, style: str = "") -> str:
    chosen = f' class="{style}"' if style else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{chosen}>{escape(words)}</text>'
