# SPDX-License-Identifier: MIT
"""How well what was written to a vCPU fits a save: first by the shape of it, then by values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from kvmabi.order.saves import Save
from kvmabi.order.values import RUNNING, VLS, group_of, is_cut, is_reversed, same
from kvmabi.order.writes import FEWEST_WRITES, Attempt, Writes

KNOWN_IDS = 0.75
"""The share of the attempted IDs that the save must have read."""
FEW = 4
"""A save that so many groups of a sample disagree with, for each that agrees, is not looked at further."""
LOOKED_AT = 4
"""How many registers of a sample are looked at closely where hardly any is equal."""
MOST_OTHERS = 8
"""How many other saves of a vCPU stale values are looked for in."""
SHORTEST_TELLING = 2
"""Bytes of the shortest value that is recognised in another register."""
MOST_EDITED = 8
"""How many registers that had the saved value are given another one by edits, rather than by what the guest left."""
LARGE = 0.5
"""The share of a vCPU's registers that a save has read that may be restored without what was read before it."""


FEWEST_CONCERNED = 0.25
"""The share of a save's groups of registers with which a rollback that forgets the others deals at least."""


class Fit(NamedTuple):
    """How well what was written fits a save; shares and weights count groups of registers, such as all of z0-z31.

    ``coverage`` is the share of the save's groups that were attempted, or looked at and found equal, ``ids`` the same
    share of its registers; ``written`` is the share of groups attempted. ``alike`` is the weight of telling values that
    were written as saved or nearly, ``left`` that of those that were written before the save and left alone,
    ``alike_ids`` the number of both, ``unlike`` the weight of other values,
    ``superseded`` that of all registers whose last value is another one.
    """

    save: Save
    coverage: float
    ids: float
    written: float
    left: float
    alike: float
    alike_ids: int
    unlike: float
    superseded: float

    @property
    def score(self) -> float:
        """By which the VM that was restored is chosen; what was written before the save speaks half as much for it."""
        return self.left / 2 + self.alike - self.mismatch

    @property
    def mismatch(self) -> float:
        """The weight of the registers whose last value is not the saved one."""
        return max(self.unlike, self.superseded)

    def is_better_than(self, other: Fit) -> bool:
        """Whether more telling values speak for it, and no more values against it."""
        return self.alike > other.alike and self.mismatch <= other.mismatch


class Shape(NamedTuple):
    """A save as restores are compared with it.

    ``weights`` of the registers that the VMM knows of it: every group has 1. ``groups`` is the number of groups,
    ``telling`` the values that are recognised in another register, ``others`` the last ones of the vCPU before it.
    """

    save: Save
    weights: dict[int, float]
    groups: float
    telling: frozenset[bytes]
    others: Sequence[Save]


def shape_of(save: Save, others: Sequence[Save] = ()) -> Shape:
    """The shape of a save; ``others`` are those before it of the same vCPU."""
    sizes = Counter(map(group_of, save.known))
    values = Counter(value.rstrip(b"\0") for value in save.state.values())
    telling = frozenset(value for value, count in values.items() if count == 1 and len(value) >= SHORTEST_TELLING)
    weights = {id: 1 / sizes[group_of(id)] for id in save.known}
    return Shape(save, weights, float(len(sizes) or 1), telling, tuple(others[-MOST_OTHERS:]))


def fit(writes: Writes, shape: Shape) -> Fit | None:
    """How well what was written fits a save; None if much of it cannot come from there."""
    save, weights = shape.save, shape.weights
    attempts, after, state = writes.evidence, save.after, save.state
    own = save.place == writes.place and not save.from_run
    later = [id for id, attempt in attempts.items() if attempt.event.number > after and (own or id not in RUNNING)]
    if not later:
        return None
    if sum(id in weights for id in later) < KNOWN_IDS * len(later):
        return None
    written = looked = left = alike = unlike = superseded = edited = 0.0
    alike_ids = edited_ids = 0
    covered: list[int] = []
    undone = not writes.attempts  # what an INIT undid was there before it
    for id, attempt in attempts.items():
        weight = weights.get(id)
        if weight is None:
            continue
        saved = state.get(id, b"")
        if attempt.event.number <= after:  # before the save: the VMM left it, if it is equal
            if same(id, saved, attempt.written) and (undone or same(id, saved, writes.state.get(id))):
                looked += weight
                covered.append(id)
                if any(saved) and not same(id, saved, writes.base.get(id)):
                    left += weight
                    alike_ids += 1
            continue
        written += weight
        covered.append(id)
        if attempt.refused is None and attempt.good[-1].data == saved and id in save.reads:  # as most are
            if id not in RUNNING and any(saved) and not same(id, saved, writes.base.get(id)):
                alike += weight
                alike_ids += 1
            continue
        likeness = _likeness(id, attempt, writes, shape)
        if likeness > 0:
            alike += weight
            alike_ids += 1
        elif likeness < 0 and _is_edited(id, attempt, save):
            edited += weight
            edited_ids += 1
        elif likeness < 0:
            unlike += weight
        if _is_superseded(id, attempt, save):
            superseded += weight
    for id, event in writes.looks.items():
        if id not in weights or id in attempts or event.data is None:
            continue
        if save.from_run and id not in writes.written_back:  # without a look, another run's save is written
            continue
        if same(id, state.get(id, b""), event.data):
            looked += weights[id]
            covered.append(id)
    if edited_ids > MOST_EDITED:
        unlike += edited
    ids = _share(covered, weights.keys(), writes)
    # a save of much of the state may be restored without what was read before it
    read = _share(covered, save.reads.keys(), writes) if len(save.reads) >= LARGE * len(save.state) else 0.0
    coverage, ids = max(read, (written + looked) / shape.groups), max(read, ids)
    return Fit(save, coverage, ids, written / shape.groups, left, alike, alike_ids, unlike, superseded)


def _share(covered: Iterable[int], of: Set[int], writes: Writes) -> float:
    """The share of registers that are covered; the vector lengths of a vCPU that has run are fixed."""
    of = of if writes.fresh else of - VLS
    return sum(id in of for id in covered) / (len(of) or 1)


def _is_superseded(id: int, attempt: Attempt, save: Save) -> bool:
    """Whether the last value that was written is not the saved one, nor what a torn save read of it before."""
    saved, last = save.state.get(id), attempt.written
    if saved is None or last is None or id in RUNNING or same(id, saved, last):
        return False
    return id in save.reads or not same(id, last, save.earlier.get(id))


def _concerned(writes: Writes, shape: Shape) -> float:
    """The share of a save's groups that was attempted or looked at."""
    concerned = shape.weights.keys() & (writes.evidence.keys() | writes.looks.keys())
    return sum(shape.weights[id] for id in concerned) / shape.groups


def equal_in_sample(writes: Writes, save: Save) -> int:
    """How many registers of the sample were written as a save has them."""
    state, earlier = save.state, save.earlier
    return sum(
        any(_is_written_as(value, state.get(id)) or _is_written_as(value, earlier.get(id)) for value in tried)
        for id, tried in writes.sampled.items()
    )


def _is_written_as(tried: bytes, saved: bytes | None) -> bool:
    return saved is not None and (tried == saved or saved.startswith(tried))


def may_fit(writes: Writes, shape: Shape, equal: int) -> bool:
    """Whether to compare a whole save, by a register of each group that was written, ``equal`` of them as saved."""
    if turns_time_back(writes, shape.save):
        return True
    sample = writes.sample
    concerned = 1.0 if writes.fresh else _concerned(writes, shape)  # after INIT a part of it may suffice
    if concerned < LARGE:  # a rollback that forgets much is only named as not judged, if nothing speaks against it
        return concerned >= FEWEST_CONCERNED and all(
            _likeness(id, one, writes, shape) >= 0 for id, one in sample.items() if id in shape.weights
        )
    if len(sample) < FEW and len(writes.evidence) >= FEWEST_WRITES:
        return True
    if equal * FEW < len(sample) - equal:  # values in other registers or with their bytes in another order
        longest = sorted(sample, key=lambda id: -len(sample[id].tried or b""))[:LOOKED_AT]
        if all(_likeness(id, sample[id], writes, shape) < 0 for id in longest):
            return False
    likeness = [_likeness(id, attempt, writes, shape) for id, attempt in sample.items() if id in shape.weights]
    unlike = sum(one < 0 for one in likeness)
    return unlike < FEW or sum(one > 0 for one in likeness) * FEW >= unlike


def _likeness(id: int, attempt: Attempt, writes: Writes, shape: Shape) -> int:
    """1: the value written is the saved one or nearly, and telling; -1: it is another one; 0: it says nothing."""
    save = shape.save
    saved = save.value_read(id)
    if id in RUNNING or saved is None:
        return 0
    if attempt.once(id, saved, save.after) is not None:
        return int(any(saved) and not same(id, saved, writes.base.get(id)))
    tried = attempt.tried
    if tried is None:
        return 0
    if same(id, saved, tried):
        return int(any(saved))
    if same(id, tried, writes.base.get(id)):
        return -1
    nearly = is_cut(saved, tried) or is_reversed(saved, tried) or tried.rstrip(b"\0") in shape.telling
    return 1 if nearly or _is_stale(id, attempt, writes, shape) else -1


def _is_edited(id: int, attempt: Attempt, save: Save) -> bool:
    """Whether a register had the saved value when it was looked at, and was given another one later."""
    saved, seen, last = save.state.get(id), attempt.seen, attempt.last
    if saved is None or seen is None or last is None or seen.data is None:
        return False
    return seen.number < last.number - 1 and same(id, saved, seen.data)


def _is_stale(id: int, attempt: Attempt, writes: Writes, shape: Shape) -> bool:
    """Whether the value is the one of an older save of the same vCPU."""
    tried = attempt.tried
    if not tried or not any(tried):
        return False
    number = attempt.event.number
    older = (other for other in shape.others if other.first_event < min(number, shape.save.first_event))
    return any(other.state.get(id) == tried and eligible(writes, other) for other in older)


def is_exact(writes: Writes, save: Save) -> bool:
    """Whether the vCPU has the state of the save, registers that run by themselves aside."""
    return all(same(id, value, writes.state.get(id)) for id, value in save.state.items())


def differing(writes: Writes, save: Save) -> int:
    """How many registers do not have the value of the save."""
    return sum(not same(id, value, writes.state.get(id)) for id, value in save.state.items())


def unequal(writes: Writes, save: Save) -> set[int]:
    """The registers that do not have the value of the save."""
    return {id for id, value in save.state.items() if not same(id, value, writes.state.get(id))}


def eligible(writes: Writes, save: Save) -> bool:
    """Whether a save was made early enough: before the last write, of the vCPU itself before what was written began.

    Another run's save can be restored after INIT only. What an INIT undid began with the INIT before.
    """
    if save.from_run:
        return writes.fresh
    if save.place == writes.place:
        undone = writes.wiped if not writes.attempts else None
        return save.first_event < (undone or writes).start
    last = writes.last.number if writes.last is not None else writes.end
    return save.first_event < last


def counters_of(writes: Writes, save: Save) -> set[int]:
    """The counters that were last written as they were read for a save: 64 bits that nothing else has."""
    attempts = writes.evidence
    return {id for id, value in save.counters if id in attempts and attempts[id].written == value}


def turns_time_back(writes: Writes, save: Save) -> bool:
    """Whether a vCPU was given a counter of an earlier save of itself, as it was read: it is being rolled back.

    A VMM that stops the guest's time writes what it read since the guest ran, which no such save has.
    """
    if save.place != writes.place or save.from_run:
        return False
    attempts = writes.attempts
    old = (counter for counter, number in save.counters.items() if number < writes.start and counter[0] in attempts)
    return any(value == event.data for id, value in old for event in attempts[id].good)


def was_entered_since(writes: Writes, save: Save) -> bool:
    """Whether there was a guest between a save and what was written, so that the VMM did not just set it up twice."""
    return save.place != writes.place or bool(save.from_run) or writes.entry > save.first_event


def is_dump(writes: Writes, save: Save, user: Writes | None = None) -> bool:
    """Whether a save is of a vCPU while it was being written to: a look at what was restored, before it ran.

    One of a state that was read again after the vCPU had run is a source like any other, for a ``user`` that was
    written to after that.
    """
    looked = save.place == writes.place and not save.from_run and writes.start < save.first_event <= writes.end
    until = user.last.number if user is not None and user.last is not None else None
    return looked and not any(start > writes.end and (until is None or start < until) for start in save.again)
