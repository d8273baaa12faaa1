# SPDX-License-Identifier: MIT
"""A report as one self-contained HTML page: pictures of the register files, and the findings as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from kvmabi.snapshot import picture
from kvmabi.snapshot.picture import Mark
from kvmabi.snapshot.snapshot import VcpuSnapshot

MOST_VCPUS = 16
"""How many vCPUs are drawn: those with marks first."""
PAGE_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 960px; color: #1a202c; background: #fff }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #e2e8f0 }
td { white-space: pre-line }
td:first-child { white-space: nowrap }
.legend svg { vertical-align: -2px; margin: 0 .3rem 0 1rem }
figure { margin: 1.5rem 0; overflow-x: auto }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page loads nothing and runs nothing, whatever a blob's names contain."""


@dataclass(frozen=True)
class Page:
    """What a page shows. ``facts`` are lines of a name and a value, ``header`` and ``rows`` a table of findings.

    ``vcpus`` are drawn with ``marks`` by vCPU index and register ID.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    vcpus: Sequence[VcpuSnapshot] = ()
    marks: Mapping[int, Mapping[int, Mark]] = field(default_factory=dict)


def write(pages: Iterable[Page]) -> str:
    """Returns the HTML of one or several reports, without a final newline. Every text is escaped.

    >>> "&lt;b&gt;" in write([Page("<b>")])
    True
    """
    bodies = "\n".join(_body(page) for page in pages)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>kvmabi blob</title>\n<style>{PAGE_STYLE}{picture.STYLE}</style>\n"
        f"</head>\n<body>\n{bodies}\n</body>\n</html>"
    )


def _body(page: Page) -> str:
    parts = [f"<h1>{escape(page.title)}</h1>"]
    if page.facts:
        parts.append(_table((), page.facts))
    drawn = sorted(page.vcpus, key=lambda vcpu: not page.marks.get(vcpu.index))[:MOST_VCPUS]
    if drawn:
        parts.append(_legend())
    for vcpu in sorted(drawn, key=lambda vcpu: vcpu.index):
        parts.append(f"<figure>{picture.draw(vcpu, page.marks.get(vcpu.index))}</figure>")
    if len(drawn) < len(page.vcpus):
        parts.append(f"<p>{len(page.vcpus) - len(drawn)} more vCPUs are not drawn.</p>")
    if page.header:
        parts.append(_table(page.header, page.rows))
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row("th", header)] if header else []
    lines += [_row("td", row) for row in rows]
    return f"<table>\n{chr(10).join(lines)}\n</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _legend() -> str:
    box = '<svg width="14" height="14"><rect class="{}" x="1" y="1" width="12" height="12"/></svg>{}'
    return '<p class="legend">' + "".join(box.format(kind, text) for kind, text in picture.LEGEND) + "</p>"
