# SPDX-License-Identifier: MIT
"""Which of several saves a VMM meant, by what it tried to write.

What a vCPU has in the end shows what was lost; what its VMM tried shows what was meant, also where the kernel refused
it or a later write destroyed it. Two saves differ in some registers, and only those decide between them: if half of
what was tried there is the newer one's, that one was meant, because its values come from nowhere else, while those of
the older one may be left in a buffer; if less than a quarter is, the older one. The guest's time counts with them: no
other save has the same. If nothing was tried there, values do not decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kvmabi.order.fitting import Fit, counters_of, differing, is_exact
from kvmabi.order.saves import FEWEST_READS, Save
from kvmabi.order.values import group_of, is_cut, is_reversed, same
from kvmabi.order.writes import Writes

OLDER_SHARE, NEWER_SHARE = 0.25, 0.5
"""The shares of what was tried where two saves differ, registers or groups, that are the newer one's: below the first
the older one was meant, from the second on the newer one; between them that is not to be seen."""


def choose(writes: Writes, fits: Sequence[Fit], known: Sequence[Save]) -> Save:
    """Among saves of one vCPU: the newest that it equals, or else the one that was meant by what was tried.

    Where that does not decide: the one that read the registers that were written, then the one that the vCPU differs
    least from, then the newest. ``known`` are all saves of the source, also those that do not fit.
    """
    saves = sorted((found.save for found in fits), key=_age, reverse=True)
    if len(saves) == 1:
        return saves[0]
    best = next((save for save in saves if is_exact(writes, save)), None)
    if best is not None and not any(_is_by_luck(writes, best, save, known) for save in saves):
        return best
    best = saves[0]
    for older in saves[1:]:
        decided = _is_newer_meant(writes, best, older, known)
        if decided is None:
            decided = differing(writes, best) <= differing(writes, older)
        if not decided:
            best = older
    return best


def _age(save: Save) -> tuple[bool, int]:
    """By which saves are older or newer; those of another run are older."""
    return save.from_run == "", save.last_event


def rivals(writes: Writes, chosen: Save, saves: Sequence[Save], known: Sequence[Save]) -> list[Save]:
    """The other saves that may as well have been meant: neither values nor the registers that were read decide.

    None if the vCPU has the state of the chosen one.
    """
    if is_exact(writes, chosen):
        return []
    found = []
    for other in saves:
        newer, older = (chosen, other) if _age(chosen) >= _age(other) else (other, chosen)
        if other is not chosen and _is_newer_meant(writes, newer, older, known) is None:
            found.append(other)
    return found


def _is_by_luck(writes: Writes, equal: Save, other: Save, known: Sequence[Save]) -> bool:
    """Whether a vCPU equals a save though the other one was meant.

    INIT gives what it has, and only values of the other one were tried; or the guest's time is the other one's, and not
    its own.
    """
    if other is equal or counters_of(writes, equal):
        return False
    if counters_of(writes, other):
        return True
    tried = _tried(writes, other, equal, known)
    return not tried[False] and tried[True].total() > 0


def _is_newer_meant(writes: Writes, newer: Save, older: Save, known: Sequence[Save]) -> bool | None:
    """Whether the newer of two saves was meant rather than the older one; None if that is not to be seen."""
    if older.went_on_in(newer) or newer.went_on_in(older):
        return older.went_on_in(newer)
    tried = _tried(writes, newer, older, known)
    if tried[True] or tried[False]:
        registers = tried[True].total() / (tried[True] + tried[False]).total()
        groups = len(tried[True]) / (len(tried[True]) + len(tried[False]))
        share = max(registers, groups)
        return None if OLDER_SHARE <= share < NEWER_SHARE else share >= NEWER_SHARE
    better = _misfit(writes, older) - _misfit(writes, newer)
    return better > 0 if abs(better) > FEWEST_READS else None


def _tried(writes: Writes, newer: Save, older: Save, known: Sequence[Save]) -> dict[bool, Counter[str]]:
    """How many registers of each group were given the newer (True) or the older (False) of two saves' values.

    A register that got both counts as it was left, if no other decides. Groups of which registers that are the same in
    both have a third save's values do not count: they are stale in any reading.
    """
    tried: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    last: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    alike = []
    for id, attempt in writes.evidence.items():
        one, other = _value(newer, id), _value(older, id)
        if one is other or (one is not None and same(id, one, other)):
            alike.append(id)
            continue
        values = attempt.values(newer.after)
        of_newer = any(_is_from(id, one, value) for value in values)
        if of_newer is not any(_is_from(id, other, value) for value in values):
            tried[of_newer][group_of(id)] += 1
        elif of_newer:  # both
            last[_is_from(id, one, values[-1])][group_of(id)] += 1
    tried = tried if any(tried.values()) else last
    for id in (counters := counters_of(writes, newer)) ^ counters_of(writes, older):
        tried[id in counters][group_of(id)] += 1
    others = [save for save in known if save.place == newer.place and save is not newer and save is not older]
    groups = tried[True].keys() | tried[False].keys()
    doubtful = [id for id in alike if group_of(id) in groups] if others else []
    for group in {group_of(id) for id in doubtful if _is_stale(writes, id, newer, others)}:
        tried[True].pop(group, None)
        tried[False].pop(group, None)
    return tried


def _is_stale(writes: Writes, id: int, save: Save, others: Sequence[Save]) -> bool:
    """Whether a register was given another value than a save's, which is that of one of the other saves."""
    written, saved = writes.evidence[id].tried, save.state.get(id)
    if not written or not any(written) or saved is None or same(id, saved, written):
        return False
    return any(same(id, written, other.state.get(id)) for other in others)


def _value(save: Save, id: int) -> bytes | None:
    """The value that the VMM has of a register, or else the one that there was."""
    value = save.value_read(id)
    return save.state.get(id) if value is None else value


def _is_from(id: int, saved: bytes | None, tried: bytes) -> bool:
    """Whether a value is the saved one or made of it; a save of another mode may not have the register."""
    return saved is not None and (same(id, saved, tried) or is_cut(saved, tried) or is_reversed(saved, tried))


def _misfit(writes: Writes, save: Save) -> int:
    """How many registers a save read that were neither written nor found equal, or were written and not read."""
    left_out = save.reads.keys() - writes.evidence.keys()
    unequal = sum(
        seen is None or not same(id, save.state.get(id, b""), seen.data)
        for id, seen in ((id, writes.looks.get(id)) for id in left_out)
    )
    written = (id for id, attempt in writes.evidence.items() if attempt.event.number > save.after)
    return unequal + sum(id not in save.reads for id in written)
