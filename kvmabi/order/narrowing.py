# SPDX-License-Identifier: MIT
"""Which of many saves are worth comparing in full with what was written: those with the most of its values.

A VMM with hundreds of checkpoints, or a program with a test for each of hundreds of machines, has as many saves as
restores. Only the registers that are not the same in all saves tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmabi.order.fitting import Shape, counters_of
from kvmabi.order.values import RUNNING
from kvmabi.order.writes import Writes

MOST_LAST, MOST_EVER = 8, 4
"""How many saves are compared because of the values that registers were given last, and because of any they were."""
MOST_COMPARED = MOST_LAST + MOST_EVER
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

    The first are those whose time was written, then those of which most registers ``telling`` have the value tried
    last, as a share of those that the save has; then those with most values that were tried at all; the newest of
    equal ones.
    """
    if len(shapes) <= MOST_COMPARED:
        return list(shapes)
    attempts = {id: attempt for id, attempt in writes.evidence.items() if id in telling}
    last = {id: (attempt.tried or b"").rstrip(b"\0") for id, attempt in attempts.items()}
    ever = {id: {value.rstrip(b"\0") for value in attempt.values(0)} for id, attempt in attempts.items()}
    by_last, by_ever = [], []
    for place, (equal, shape) in enumerate(shapes):
        state = shape.save.state
        values = {id: state[id].rstrip(b"\0") for id in last if id in state}
        as_last = sum(last[id] == value for id, value in values.items()) / (len(values) or 1)
        as_ever = sum(value in ever[id] for id, value in values.items())
        timed = bool(counters_of(writes, shape.save))
        by_last.append((timed, as_last, equal, shape.save.first_event, place))
        by_ever.append((as_ever, equal, shape.save.first_event, place))
    best = {rank[-1] for rank in sorted(by_last, reverse=True)[:MOST_LAST]}
    others = [rank[-1] for rank in sorted(by_ever, reverse=True) if rank[-1] not in best]
    return [shapes[place] for place in sorted(best.union(others[:MOST_EVER]))]
