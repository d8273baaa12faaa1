# SPDX-License-Identifier: MIT
"""A trace as an SVG timeline: the rows of the text timeline, with the owners of the registers in colour."""

from __future__ import annotations

from html import escape

from kvmabi.fpstate import tokens
from kvmabi.fpstate.render.rows import LIE, SEEN, Row, closing, headline, rows
from kvmabi.fpstate.trace import Step, Trace

ROW, CHAR, PAD = 22, 7.3, 10
_COLOURS = ["#2b6cb0", "#c05621", "#2f855a", "#6b46c1"]
_STYLE = (
    "text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1a202c}"
    ".h{font-weight:bold}.lie{fill:#b7791f}.seen{fill:#c53030}.dim{fill:#4a5568}"
)


def _colour(token: int) -> str:
    owner = tokens.owner_of(token)
    if owner == tokens.NOBODY:
        return "#a0aec0"
    if tokens.is_guest(owner):
        return "#b83280"
    return _COLOURS[owner % tokens.LIMIT] if tokens.is_user(owner) else "#718096"


def _text(x: float, y: float, words: str, style: str = "") -> str:
    chosen = f' class="{style}"' if style else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{chosen}>{escape(words)}</text>'


def _columns(trace: Trace, table: list[Row]) -> list[tuple[str, float]]:
    """Heading and x of each column; the last entry is the right edge of the picture."""
    cpus = range(len(trace.start.cpus))
    widths = [("#", 3)]
    widths += [(f"CPU{c}", max(5, *(len(r.cells[c]) for r in table)) + 5) for c in cpus]
    widths.append(("event", max(len(r.event) for r in table) + 2))
    widths.append(("registers after", max(15, *(len(r.registers) for r in table)) + 4))
    widths.append(("memory and metadata that changed", max(33, *(len(" ".join(r.changes)) for r in table)) + 2))
    columns, x = [], float(PAD)
    for heading, width in widths:
        columns.append((heading, x))
        x += width * CHAR
    longest = max(len(n) for n in [headline(trace), closing(trace), *(f"    {n}" for r in table for n in r.notes)])
    return [*columns, ("", max(x, PAD + longest * CHAR))]


def _row(step: Step, row: Row, columns: list[tuple[str, float]], y: float) -> list[str]:
    parts = []
    cpus = len(row.cells)
    if row.marks:
        colour = "#fff5f5" if SEEN in row.marks else "#fffff0"
        parts.append(f'<rect x="0" y="{y - 15:.0f}" width="100%" height="{ROW}" fill="{colour}"/>')
    parts.append(_text(columns[0][1], y, str(row.number), "dim"))
    for c in range(cpus):
        x = columns[1 + c][1]
        cpu = step.after.cpus[c]
        title = f"<title>CPU{c} V={escape(tokens.name(cpu.V))}</title>"
        place = f'x="{x:.0f}" y="{y - 11:.0f}" width="14" height="14" rx="3"'
        parts.append(f'<rect {place} fill="{_colour(cpu.V)}">{title}</rect>')
        parts.append(_text(x + 20, y, row.cells[c], "h" if c == row.cpu else "dim"))
    parts.append(_text(columns[1 + cpus][1], y, row.event))
    parts.append(_text(columns[2 + cpus][1], y, " ".join([row.registers, *row.marks])))
    parts.append(_text(columns[3 + cpus][1], y, " ".join(row.changes), "dim"))
    return parts


def svg(trace: Trace) -> str:
    """The picture, self-contained. The square next to each CPU shows the owner of V."""
    table = rows(trace)
    if not table:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>\n'
    columns = _columns(trace, table)
    y = 24.0
    parts = [_text(PAD, y, headline(trace), "h")]
    y += ROW
    parts += [_text(x, y, heading, "h") for heading, x in columns[:-1]]
    for step, row in zip(trace.steps, table, strict=True):
        y += ROW
        parts += _row(step, row, columns, y)
        for note in row.notes:
            y += ROW
            parts.append(_text(PAD + 4 * CHAR, y, note, "lie" if note.startswith(LIE) else "seen"))
    if closing(trace):
        y += ROW * 1.5
        parts.append(_text(PAD, y, closing(trace)))
    width, height = columns[-1][1] + PAD, y + 14
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" role="img">'
    back = '<rect width="100%" height="100%" fill="#ffffff"/>'
    label = f"<title>{escape(headline(trace))}</title>"
    return "\n".join([head, label, f"<style>{_STYLE}</style>", back, *parts, "</svg>"]) + "\n"
