# SPDX-License-Identifier: MIT
"""A trace as a text timeline: one column per CPU, changes only."""

from __future__ import annotations

from kvmabi.fpstate.render.rows import closing, headline, rows
from kvmabi.fpstate.trace import Trace


def text(trace: Trace) -> str:
    """The timeline; the first lie is marked ▲, the observation ✗."""
    table = rows(trace)
    cpus = range(len(trace.start.cpus))
    heads = [" #", *(f"CPU{c}" for c in cpus), "event", "registers after", "memory and metadata that changed"]
    lines = [heads]
    for row in table:
        cells = [("*" if c == row.cpu and len(cpus) > 1 else "") + row.cells[c] for c in cpus]
        mark = "".join(row.marks)
        changes = " ".join(row.changes)
        lines.append([f"{row.number:2}", *cells, row.event, f"{row.registers}{' ' if mark else ''}{mark}", changes])
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    out = [headline(trace)]
    for number, line in enumerate(lines):
        out.append("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())
        if number:
            out += [f"    {note}" for note in table[number - 1].notes]
    if closing(trace):
        out.append(closing(trace))
    return "\n".join(out) + "\n"
