# SPDX-License-Identifier: MIT
"""Which of many saves are worth comparing in full with what was written: those with the most of its values.

A VMM with hundreds of checkpoints, or a program with a test for each of hundreds of machines, has as many saves as
restores. Only the registers that are not the same in all saves tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmabi.order.fitting import Shape
from kvmabi.order.values import RUNNING
from kvmabi.order.writes import Writes

MOST_COMPARED = 12
"""How many saves are compared in full."""


def varying(shapes: Sequence[Shape]) -> frozenset[int]:
    """The registers that are not the same in all saves, those that run by themselves aside."""
    if not shapes:
        return frozenset()
    first = shapes[0].save.state
    found = {id for shape in shapes for id, value in shape.save.state.items() if first.get(id) != value}
    return frozenset(found.union(*(first.keys() - shape.save.state.keys() for shape in shapes)) - RUNNING)


def likeliest(writes: Writes, shapes: Sequence[tuple[int, Shape]], telling: frozenset[int]) -> list[tuple[int, Shape]]:
    """Of saves, each with how many registers of the sample are as it has them, those to compare; in their order.

    The first are those with the most values that were tried of the registers ``telling``, then the newest.
    """
    if len(shapes) <= MOST_COMPARED:
        return list(shapes)
    tried = {
        id: {value.rstrip(b"\0") for value in attempt.values(0)}
        for id, attempt in writes.evidence.items()
        if id in telling
    }

    def rank(place: int) -> tuple[int, int, int]:
        equal, (save, *_) = shapes[place]
        values = ((save.state.get(id), wanted) for id, wanted in tried.items())
        told = sum(value is not None and value.rstrip(b"\0") in wanted for value, wanted in values)
        return told, equal, save.first_event

    best = sorted(range(len(shapes)), key=rank, reverse=True)[:MOST_COMPARED]
    return [shapes[place] for place in sorted(best)]
