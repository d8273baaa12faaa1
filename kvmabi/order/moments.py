# SPDX-License-Identifier: MIT
"""Which saves of a VM's vCPUs belong together: a VMM saves all of them, one after the other, and restores all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kvmabi.order.saves import Save

FEWEST_READ = 1 / 3
"""The share of a vCPU's registers that is read in its turn; a restore that looks at them reads fewer at once."""
Moment = dict[int, list[Save]]
"""The saves of one pass over the vCPUs of a VM, by vCPU; several of a vCPU that changed in its turn."""


def moments(saves: Sequence[Save], *, before: int) -> list[Moment]:
    """The passes over the vCPUs of one VM before an event, the oldest first.

    Another one begins where a vCPU has its turn again, or where the index falls: a vCPU may be looked at out of turn,
    and what leaves more passes complete is right. A vCPU that did not change from one pass to the next has one save,
    which belongs to both. Saves of a small part of the state do not count, unless there are no others: a debugger reads
    a few registers of one vCPU.
    """
    readings = [save for start, save in _readings(saves) if save.from_run or start < before]
    by_index = _cut(readings, lambda vcpu, turn, _: vcpu < turn)
    by_turn = _cut(readings, lambda vcpu, turn, moment: vcpu in moment and vcpu != turn)
    count = len({save.vcpu for save in readings})
    return max(by_index, by_turn, key=lambda passes: sum(len(moment) == count for moment in passes))


def _cut(readings: Iterable[Save], begins: Callable[[int, int, Moment], bool]) -> list[Moment]:
    """The readings as passes; ``begins`` returns whether a vCPU begins one, after another one's turn in a pass."""
    found: list[Moment] = []
    turn = 0
    for save in readings:
        if not found or begins(save.vcpu, turn, found[-1]):
            found.append({})
        turn = save.vcpu
        found[-1].setdefault(turn, []).append(save)
    return found


def _readings(saves: Sequence[Save]) -> list[tuple[int, Save]]:
    """The saves by the number of each event at which one began or its unchanged vCPU was read again, in order."""
    large = [save for save in saves if save.is_large and len(save.reads) >= FEWEST_READ * len(save.state)]
    readings = [(start, save) for save in large or saves for start in (save.first_event, *save.again)]
    return sorted(readings, key=lambda reading: reading[0])


def agreed(passes: Sequence[Moment], chosen: Iterable[Sequence[Save]]) -> list[Moment]:
    """The passes that most vCPUs of a VM were restored from, given the saves that each may have been restored from."""
    choices = [{id(save) for save in saves} for saves in chosen]
    votes = [sum(any(id(save) in choice for save in _of(moment)) for choice in choices) for moment in passes]
    most = max(votes, default=0)
    return [moment for moment, count in zip(passes, votes, strict=True) if count == most] if most else []


def _of(moment: Moment) -> Iterable[Save]:
    return (save for saves in moment.values() for save in saves)


def of_vcpu(passes: Iterable[Moment], vcpu: int) -> list[Save]:
    """The saves of a vCPU in some passes, without repetition, the oldest first."""
    found = {id(save): save for moment in passes for save in moment.get(vcpu, ())}
    return list(found.values())
