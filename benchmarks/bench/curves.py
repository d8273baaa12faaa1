# SPDX-License-Identifier: MIT
"""A curve as an SVG picture: measured points, joined by lines, on axes that begin at 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 52, 46
MOST_TICKS = 5
SMALLEST = 1e-9
"""An axis that ends below has no scale of its own."""
STYLE: Final = (
    "text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1a202c}"
    ".h{font-weight:bold}.dim{fill:#4a5568}.m{text-anchor:middle}.e{text-anchor:end}"
    ".grid{stroke:#e2e8f0}.axis{stroke:#4a5568}.line{fill:none;stroke:#2b6cb0;stroke-width:2}.point{fill:#2b6cb0}"
)
Points = Sequence[tuple[float, float]]


def step(most: float) -> float:
    """The distance of ticks on an axis from 0 to ``most``: 1, 2 or 5 times a power of ten, at most five of them."""
    if most < SMALLEST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most / MOST_TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * MOST_TICKS >= most * (1 - 1e-9))


def ticks(most: float) -> list[float]:
    """Where the lines of the grid are: from 0 to the first one that is not below ``most``."""
    distance = step(most)
    return [distance * number for number in range(math.ceil(round(most / distance, 6)) + 1)]


def svg(title: str, across: str, up: str, points: Points) -> str:
    """The picture, self-contained. ``across`` and ``up`` name the axes and their units."""
    xs, ys = ticks(max(x for x, _ in points)), ticks(max(y for _, y in points))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / (xs[-1] or 1) * wide, TOP + high - y / (ys[-1] or 1) * high

    parts = [f'<text x="12" y="20" class="h">{escape(title)}</text>']
    parts.append(f'<text x="12" y="40" class="dim">{escape(up)}</text>')
    for y in ys:
        parts += _grid(place(0, y), place(xs[-1], y), "axis" if y == 0 else "grid")
        parts.append(_label(LEFT - 6, place(0, y)[1] + 4, y, "dim e"))
    for x in xs:
        parts.append(_label(place(x, 0)[0], TOP + high + 18, x, "dim m"))
    parts.append(f'<text x="{LEFT + wide / 2:.0f}" y="{HEIGHT - 8}" class="dim m">{escape(across)}</text>')
    spots = [place(x, y) for x, y in points]
    parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>')
    for (x, y), (value, cost) in zip(spots, points, strict=True):
        said = escape(f"{value:g} {across}: {cost:.3g} {up}")
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{said}</title></circle>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" role="img">'
    back = '<rect width="100%" height="100%" fill="#ffffff"/>'
    label = f"<title>{escape(title)}</title>"
    return "\n".join([head, label, f"<style>{STYLE}</style>", back, *parts, "</svg>"]) + "\n"


def _grid(start: tuple[float, float], end: tuple[float, float], kind: str) -> Iterator[str]:
    yield f'<line class="{kind}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _label(x: float, y: float, value: float, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{value:g}</text>'
