# SPDX-License-Identifier: MIT
"""Figures of several rounds as a table: medians, ratios, and whether a target is met. As text and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.rows import BARE, COUNTED, ROWS, Row

Figures = Mapping[str, float]
"""Microseconds by name."""


@dataclass(frozen=True)
class Real:
    """A real kernel's figures: µs by name, and what was measured.

    ``recorded``: at another time, on another machine. ``registers``: how many a save and a restore have; 0 if unknown.
    """

    name: str
    figures: Figures
    recorded: bool
    registers: int = 0


@dataclass
class Measured:
    """The figures of each side in each round, or why a side could not be measured."""

    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def median(self, side: str, figure: str) -> float | None:
        """The median over the rounds that have this figure; None if no round has."""
        found = self.values(side, figure)
        return statistics.median(found) if found else None

    def values(self, side: str, figure: str) -> list[float]:
        """The figure in each round that has it."""
        return [figures[figure] for figures in self.rounds.get(side, ()) if figure in figures]


@dataclass(frozen=True)
class Line:
    """A row with its figures: all times in µs. ``missing`` is why there are none, "" if there are."""

    side: str
    title: str
    median: float | None = None
    least: float | None = None
    most: float | None = None
    times_bare: float | None = None
    target: float | None = None
    met: bool | None = None
    real: float | None = None
    times_real: float | None = None
    missing: str = ""


def lines(measured: Measured, real: Real, rows: Iterable[Row] = ROWS) -> list[Line]:
    """The table: a line for each row; of a side that could not be measured, one line with the reason."""
    bare = measured.median(*BARE)
    table: list[Line] = []
    named: set[str] = set()
    for row in rows:
        median = measured.median(row.side, row.figure)
        if median is not None:
            table.append(_line(row, median, measured.values(row.side, row.figure), bare, real))
            continue
        reason = measured.missing.get(row.side)
        if reason is None:
            table.append(Line(row.side, row.title, missing="not measured"))
        elif row.side not in named:
            named.add(row.side)
            table.append(Line(row.side, "left out", missing=reason))
    return table


def _line(row: Row, median: float, found: Sequence[float], bare: float | None, kernel: Real) -> Line:
    real = kernel.figures.get(row.real)
    registers = COUNTED.match(row.figure)
    per_register = kernel.registers / int(registers[2]) if registers and kernel.registers else 1
    return Line(
        row.side,
        row.title,
        median,
        min(found),
        max(found),
        median / bare if bare else None,
        row.target,
        None if row.target is None else median <= row.target,
        real,
        median / real * per_register if real else None,
    )


HEADINGS = ("µs, median", "least", "most", "x bare ioctl", "target", "", "real kernel", "x real kernel")
WIDTHS = (12, 10, 10, 13, 9, 7, 13, 14)
TITLE_WIDTH = 34


def text(table: Sequence[Line], real: Real, notes: Iterable[str]) -> str:
    """The table for people; the notes follow it."""
    out = [" " * TITLE_WIDTH + "".join(f"{words:>{width}}" for words, width in zip(HEADINGS, WIDTHS, strict=True))]
    side = ""
    for line in table:
        if line.side != side:
            side = line.side
            out += ["", side]
        if line.missing:
            out.append(f"  {line.title}: {line.missing}")
            continue
        met = {None: "", True: "met", False: "missed"}[line.met]
        mark = "*" if real.recorded and line.real is not None else " "
        times = [_number(value) for value in (line.median, line.least, line.most, line.times_bare, line.target)]
        cells = [*times, met, _number(line.real) + mark, _number(line.times_real)]
        body = "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
        out.append((f"  {line.title}".ljust(TITLE_WIDTH) + body).rstrip())
    star = "* recorded, not of this run: " if real.recorded else "real kernel: "
    saves = f", whose vCPU has {real.registers} registers: saves and restores are compared by register"
    return "\n".join([*out, "", star + real.name + (saves if real.registers else ""), *notes])


def _number(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def to_json(table: Sequence[Line], real: Real, facts: Mapping[str, Any]) -> str:
    """The table for programs: ``facts`` (how it was measured, growth) are added at the top level."""
    kernel = {"name": real.name, "recorded": real.recorded, "registers": real.registers}
    rows = [asdict(line) for line in table]
    return json.dumps({"unit": "µs", **facts, "real_kernel": kernel, "rows": rows}, indent=2, ensure_ascii=False)
