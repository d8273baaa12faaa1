# SPDX-License-Identifier: MIT
"""Bugs by variants: the table of which variant has which bug, computed on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvmabi.fpstate.catalogue import bugs
from kvmabi.fpstate.relevance import search_all
from kvmabi.fpstate.variants import Variant, presets


@dataclass(frozen=True)
class Matrix:
    """The cells (Finding.mark) by bug and variant."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], str]

    def text(self) -> str:
        """The table as text, one line per bug."""
        width = [max(len(c), *(len(self.cells[r, c]) for r in self.rows)) for c in self.columns]
        first = max(map(len, self.rows))
        heads = [c.rjust(w) for c, w in zip(self.columns, width, strict=True)]
        lines = [" ".join([" " * first, *heads])]
        for row in self.rows:
            cells = [self.cells[row, c].rjust(w) for c, w in zip(self.columns, width, strict=True)]
            lines.append(" ".join([row.ljust(first), *cells]))
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, dict[str, str]]:
        """Cells as nested mappings: bug, then variant."""
        return {r: {c: self.cells[r, c] for c in self.columns} for r in self.rows}


LEGEND = (
    "Rn: reproduces in n steps; rn: the same, if SME is forced on although this kernel cannot select it; "
    "-: absent, search exhausted; n/a: not applicable; ?: undecided within the bounds"
)


def matrix(variants: Sequence[Variant] | None = None, *, processes: int | None = None) -> Matrix:
    """Search every bug on every preset, or on the given variants."""
    columns = list(variants or presets().values())
    jobs = [(bug, variant) for bug in bugs().values() for variant in columns]
    marks = [finding.mark for finding in search_all(jobs, processes)]
    cells = {(bug.id, variant.name): mark for (bug, variant), mark in zip(jobs, marks, strict=True)}
    return Matrix(tuple(bugs()), tuple(v.name for v in columns), cells)
