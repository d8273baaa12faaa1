# SPDX-License-Identifier: MIT
"""The steps that restore one vCPU, as a value: right orders of many kinds, which mistakes then spoil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

from kvmabi.testing.vmms import families
from kvmabi.testing.vmms.families import SVCR, VLS, family
from kvmabi.testing.vmms.machine import Save


class Kind(StrEnum):
    """What is restored into: a new vCPU, one that gets INIT again, or one that is written over as it is."""

    NEW = "new"
    AGAIN = "again"
    OVER = "over"


class What(StrEnum):
    """What a step does. CHECK reads the register first and writes it only if it differs."""

    SET = "set"
    CHECK = "check"
    READ = "read"
    INIT = "init"
    FINALIZE = "finalize"
    KICK = "kick"
    MP_STATE = "mp_state"
    EVENTS = "events"
    ENTER = "enter"


class Step(NamedTuple):
    """One step: for SET and CHECK the register and its value, for READ the register, else perhaps a struct."""

    what: What
    id: int = 0
    value: bytes = b""

    @property
    def writes(self) -> bool:
        """Whether it is about a register."""
        return self.what in (What.SET, What.CHECK)


FINALIZE, KICK, INIT, ENTER = Step(What.FINALIZE), Step(What.KICK), Step(What.INIT), Step(What.ENTER)


def sets(values: dict[int, bytes], ids: Sequence[int]) -> list[Step]:
    """Writes of those IDs that were saved."""
    return [Step(What.SET, id, values[id]) for id in ids if id in values]


def right(
    rng: Random,
    save: Save,
    kind: Kind,
    *,
    vector: bool,
    has_run: bool = False,
    early_svcr: bool = False,
    known: Mapping[int, bytes] | None = None,
    checks: bool = True,
) -> list[Step]:
    """Steps that lose nothing: vector lengths, FINALIZE, SVCR, all else in some order.

    ``vector``: the vCPU needs FINALIZE; ``has_run``: its VM has entered the guest; ``early_svcr``: the kernel takes
    SVCR before FINALIZE. ``known`` are the values of a vCPU that is written over, if the VMM writes changes only;
    ``checks``: it may read each register first and write it only if it differs.
    """
    if known is not None:
        return _with_the_rest(rng, save, _changes(save.values, known), kick_anywhere=has_run)
    values = save.values
    rest = [id for id in values if id not in (*VLS, SVCR)]
    mode = sets(values, [SVCR])
    steps: list[Step] = []
    if kind is Kind.AGAIN:
        steps.append(INIT)
    elif kind is Kind.NEW:
        steps += sets(values, rng.sample(VLS, 2))
        if rng.random() < 0.25:
            identification = families.of(rest, "id")
            steps += sets(values, identification)
            rest = [id for id in rest if family(id) != "id"]
        if early_svcr and mode and rng.random() < 0.1:
            steps += mode
            mode = []
        if vector:
            steps.append(FINALIZE)
    if mode and rng.random() < 0.1:
        steps += [Step(What.SET, SVCR, value.to_bytes(8, "little")) for value in rng.sample(range(4), 2)]
    steps += mode + _all_else(rng, values, rest)
    if checks and rng.random() < 0.12:
        steps = [step._replace(what=What.CHECK) if step.what is What.SET else step for step in steps]
    return _with_the_rest(rng, save, steps, kick_anywhere=has_run)


def _changes(values: dict[int, bytes], known: Mapping[int, bytes]) -> list[Step]:
    """What differs, and all that SVCR resets if it changes."""
    mode_changes = SVCR in values and values[SVCR] != known.get(SVCR)
    reset = frozenset((*families.VECTOR_FAMILIES, *families.STREAMING_FAMILIES) if mode_changes else ())
    changed = [id for id, value in values.items() if known.get(id) != value or family(id) in reset]
    rest = [id for id in changed if id not in (*VLS, SVCR)]
    return sets(values, [SVCR, *rest] if mode_changes else rest)


def _all_else(rng: Random, values: dict[int, bytes], rest: list[int]) -> list[Step]:
    """Everything after SVCR, in one of the orders that VMMs have."""
    style = rng.choice(
        ("list", "list", "sorted", "reversed", "shuffled", "families", "twice", "system first", "healed")
    )
    if style == "sorted":
        rest = sorted(rest)
    elif style == "reversed":
        rest = rest[::-1]
    elif style == "shuffled":
        rest = rng.sample(rest, len(rest))
    elif style == "families":
        banks = list(families.banks(rest))
        rest = [id for bank in rng.sample(banks, len(banks)) for id in bank]
    elif style == "twice":
        rest = rest + rng.sample(rest, rng.randint(1, len(rest))) if rest else rest
    elif style == "system first":
        system = [id for id in rest if family(id) in ("system", "id", "count")]
        rest = [*system, *(id for id in rest if id not in set(system)), *system]
    elif style == "healed":
        everything = [id for id in values if id not in VLS]
        rest = [*everything, *everything]
    return sets(values, rest)


def _with_the_rest(rng: Random, save: Save, steps: list[Step], *, kick_anywhere: bool) -> list[Step]:
    """MP state and events somewhere after FINALIZE, and sometimes a kick, which does not enter the guest."""
    first = 1 + max((at for at, step in enumerate(steps) if step.what in (What.FINALIZE, What.INIT)), default=-1)
    for what, value in ((What.MP_STATE, save.mp_state), (What.EVENTS, save.events)):
        if value is not None:
            steps.insert(rng.randint(first, len(steps)), Step(what, 0, value))
    if rng.random() < 0.12 and (kick_anywhere or save.had_run):
        if not kick_anywhere:
            identified = (at for at, step in enumerate(steps) if step.writes and family(step.id) == "id")
            first = max(first, 1 + max(identified, default=-1))
        steps.insert(rng.randint(first, len(steps)), KICK)
    return steps
