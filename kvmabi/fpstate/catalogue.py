# SPDX-License-Identifier: MIT
"""The known bugs (bugs.toml), and whether a variant has one: decided by search, never by look-up."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

from kvmabi.errors import UsageError
from kvmabi.fpstate.config import Config, builtin, config_from
from kvmabi.fpstate.explorer import BOUND, VIOLATED, Bounds, Explorer, Result
from kvmabi.fpstate.invariants import Selection, select
from kvmabi.fpstate.trace import Trace, trace_of
from kvmabi.fpstate.variants import Knobs, Variant
from kvmabi.tables import Reader

REPRODUCES, ABSENT, UNDECIDED, NOT_APPLICABLE = "reproduces", "absent", "undecided", "not applicable"
SEARCH = Bounds(states=2_000_000)


@dataclass(frozen=True)
class Bug:
    """One entry of bugs.toml. ``present_in`` names the presets that have it; ``needs`` are knobs."""

    id: str
    title: str
    introduced: tuple[str, ...]
    fixed_by: tuple[str, ...]
    releases: str
    looks_for: Selection
    lie: str
    config: Config
    observed: str
    story: str
    needs: tuple[str, ...]
    forces_sme: bool
    present_in: tuple[str, ...]

    def applies(self, variant: Variant) -> bool:
        """Whether the bug is possible at all: a kernel without SME code has no SME bugs."""
        return all(getattr(variant.knobs, need) for need in self.needs)

    def forced(self, variant: Variant) -> bool:
        """Whether the search assumes SME although this kernel cannot select it."""
        return self.forces_sme and not variant.knobs.sme


@dataclass(frozen=True)
class Finding:
    """Whether a variant has a bug, with the trace if it has."""

    bug: Bug
    variant: Variant
    outcome: str
    forced: bool = False
    result: Result | None = None
    trace: Trace | None = None

    @property
    def mark(self) -> str:
        """The cell of the matrix: R and the number of steps (r if SME is forced), "-", "?" or "n/a"."""
        if self.outcome == NOT_APPLICABLE:
            return "n/a"
        if self.outcome == UNDECIDED:
            return "?"
        if self.outcome == ABSENT or self.trace is None:
            return "-"
        return f"{'r' if self.forced else 'R'}{len(self.trace.steps)}"


@functools.cache
def bugs() -> dict[str, Bug]:
    """All catalogued bugs, in the file's order."""
    return {name: _bug(name, row) for name, row in builtin("bugs.toml").readers().items()}


def _bug(name: str, row: Reader) -> Bug:
    return Bug(
        name,
        row.text("title"),
        row.texts("introduced"),
        row.texts("fixed_by"),
        row.text("releases"),
        select(row.text("looks_for")),
        row.text("lie"),
        config_from(row.sub("config"), f"bugs.toml: {name}.config"),
        row.text("observed"),
        row.text("story"),
        row.texts("needs", (field.name for field in fields(Knobs))),
        "sme" in row.texts("forces"),
        row.texts("present_in"),
    )


def find_bug(name: str) -> Bug:
    """The catalogued bug with this id (case-insensitive). Raises UsageError if there is none."""
    for bug in bugs().values():
        if bug.id.casefold() == name.casefold():
            return bug
    raise UsageError(f"no bug {name!r} in the catalogue: choose from {', '.join(bugs())}")


def search(bug: Bug, variant: Variant, bounds: Bounds = SEARCH) -> Finding:
    """Search a variant for the bug's observation, in the bug's smallest configuration."""
    if not bug.applies(variant):
        return Finding(bug, variant, NOT_APPLICABLE)
    explorer = Explorer(variant, bug.config, bug.looks_for)
    result = explorer.run(bounds)
    forced = bug.forced(variant)
    if result.verdict == BOUND:
        return Finding(bug, variant, UNDECIDED, forced, result)
    if result.verdict != VIOLATED:
        return Finding(bug, variant, ABSENT, forced, result)
    return Finding(bug, variant, REPRODUCES, forced, result, trace_of(explorer, variant, result))
