# SPDX-License-Identifier: MIT
"""What is written to the vCPUs of a VM from one INIT of them to the next, and whether it sets the VM up anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from kvmabi.events import MP_STATE
from kvmabi.order.saves import Save
from kvmabi.order.values import RUNNING
from kvmabi.order.writes import FEWEST_WRITES, Attempt, Writes


def rounds(writes: Sequence[Writes]) -> list[list[Writes]]:
    """What was written to the vCPUs of one VM, from one INIT of them to the next after they have run."""
    found: dict[tuple[int, int], list[Writes]] = defaultdict(list)
    entries: dict[int, list[int]] = defaultdict(list)
    latest: dict[tuple[int, int], int] = {}
    for one in writes:
        if one.entered:
            entries[one.vm].append(one.end)
    for one in writes:
        if one.fresh:
            latest[one.place] = sum(entry < one.start for entry in entries[one.vm])
        found[one.vm, latest.get(one.place, 0)].append(one)
    return list(found.values())


def is_set_up_anew(together: Iterable[Writes]) -> bool:
    """Whether a VM was reset: INIT undid what a vCPU of it was given, and a few registers were set since, as by a boot.

    The MP state and pending events do not count: a VMM sets them after INIT without a boot.
    """
    return any(of.wiped is not None and 0 < registers_set(of) < FEWEST_WRITES for of in together)


def is_written_back(writes: Writes, saves: Iterable[Save]) -> bool:
    """Whether a VMM only wrote back what it had read since the guest ran: that restores nothing.

    Counters move on between the read and the write. What is not a register has no attempt that says so: its value is
    compared with the one that was read.
    """
    if writes.fresh or writes.last is None or 2 * len(writes.written_back) < len(writes.state):
        return False
    start, last = writes.start, writes.last.number
    own = [save for save in saves if save.place == writes.place and not save.from_run]
    read = [save for save in own if any(start < at < last for at in (save.first_event, *save.again))]
    return any(all(_is_as_read(id, attempt, save) for id, attempt in writes.attempts.items()) for save in read)


def _is_as_read(id: int, attempt: Attempt, save: Save) -> bool:
    """Whether a counter was written, or the value that the VMM had read of what is not a register."""
    return id in RUNNING or (id >= MP_STATE and id in save.reads and attempt.written == save.state.get(id))


def registers_set(writes: Writes) -> int:
    """How many registers were written, pseudo-registers aside."""
    return sum(id < MP_STATE for id in writes.attempts)
