# SPDX-License-Identifier: MIT
"""The state of a fuzzing run in a file, from which an interrupted run continues."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kvmabi.errors import UsageError
from kvmabi.tables import Reader
from kvmabi.tables import load as load_table
from kvmabi.wholefile import replace

MAX_BYTES = 64 << 20


@dataclass
class State:
    """What identifies a run (``seed``, ``against``), and its progress.

    ``next`` is the number of the next sequence, ``steps`` the number of steps done, ``found`` the cases found and
    ``kinds`` the kind of each, which is reported once.
    """

    seed: int
    against: str
    next: int = 0
    steps: int = 0
    found: list[str] = field(default_factory=list)
    kinds: list[list[str]] = field(default_factory=list)

    def save(self, path: str | None) -> None:
        """Write the state atomically; without a path, do nothing."""
        if path is not None:
            replace(Path(path), json.dumps(asdict(self), indent=1) + "\n")


def load(path: str | None, seed: int, against: str) -> State:
    """Returns the state in a file, or a new one; UsageError if the file is not a state of this run."""
    fresh = State(seed, against)
    if path is None or not Path(path).exists():
        return fresh
    read = Reader(path, load_table(path, "a state of kvmabi fuzz", max_bytes=MAX_BYTES, as_json=True))
    read.only(asdict(fresh))
    kinds = read.items("kinds")
    if not all(isinstance(kind, list) and all(isinstance(word, str) for word in kind) for kind in kinds):
        raise read.wrong("kinds", "must be an array of arrays of strings")
    if len(kinds) != len(read.items("found")):
        raise read.wrong("kinds", "must have as many entries as found")
    state = State(
        seed=read.number("seed"),
        against=read.text("against"),
        next=read.number("next", 0),
        steps=read.number("steps", 0),
        found=list(read.texts("found")),
        kinds=kinds,
    )
    if (state.seed, state.against) != (seed, against):
        raise UsageError(f"{path}: the state of another run (seed {state.seed}, {state.against}): take another file")
    return state
