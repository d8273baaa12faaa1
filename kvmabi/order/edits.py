# SPDX-License-Identifier: MIT
"""Whether a register was written again on purpose after it was restored, or was restored wrongly."""

from __future__ import annotations

from functools import cached_property

from kvmabi.events import Event
from kvmabi.order.saves import Save
from kvmabi.order.values import is_cut, is_reversed, name_of, same
from kvmabi.order.writes import FEWEST_WRITES, Attempt, Writes

FEW = 4
"""How many cut values are not edits, and how many events after a write the next one follows at once."""


class Edits:
    """What was written to a restored vCPU again on purpose.

    ``certain`` are the names of the registers that were edited, ``doubtful`` those of which events cannot decide it.
    """

    def __init__(self, writes: Writes, save: Save) -> None:
        self._writes = writes
        self._save = save
        self.certain: list[str] = []
        self.doubtful: list[str] = []

    def count(self, id: int, attempt: Attempt) -> bool:
        """Whether a register had the saved value before it was given another one; counts it if so.

        It was written as saved; or it was left alone because it had the value, and written after the restore was done.
        """
        name = name_of(id)
        if name in self.certain or name in self.doubtful:
            return True
        doubts = self._doubts(id, attempt)
        if doubts is not None:
            (self.doubtful if doubts else self.certain).append(name)
        return doubts is not None

    def _doubts(self, id: int, attempt: Attempt) -> bool | None:
        """None if the register did not have the saved value before; else whether it may be a mistake nevertheless."""
        saved, last = self._save.state[id], attempt.good[-1].number
        if id in self._cut:
            return None
        restored = attempt.once(id, saved, self._save.after)
        if restored is not None:
            return self._is_written_anew(last) or self._is_looked_at_anew(restored.number, attempt.seen, last)
        if last <= self._end:
            return None
        seen = attempt.seen
        if seen is not None and seen.number > self._save.after:
            if seen.data is None or not same(id, saved, seen.data):
                return None
            return seen.number == last - 1  # looked at by a restore that writes what differs, or an edit right after it
        start = self._writes.base.get(id, b"")  # what SVCR brings into being is zero
        if attempt.once(id, saved, 0) is None and not same(id, saved, start):
            return None
        return last <= self._tail

    @cached_property
    def _as_saved(self) -> dict[int, int]:
        """The registers that were written as saved last, by the numbers of the events."""
        found = {}
        for id, attempt in self._writes.attempts.items():
            saved, last = self._save.state.get(id), attempt.last
            if last is None or saved is None or last.data is None or last.number <= self._save.after:
                continue
            if same(id, saved, last.data):
                found[last.number] = id
        return found

    @cached_property
    def _cut(self) -> frozenset[int]:
        """The registers whose values were cut or reversed, if there are many: a mistake, which edits do not make."""
        tried = ((id, self._save.state.get(id), attempt.written) for id, attempt in self._writes.attempts.items())
        cut = [id for id, saved, last in tried if saved and last and (is_cut(saved, last) or is_reversed(saved, last))]
        return frozenset(cut if len(cut) >= FEW else ())

    @cached_property
    def _end(self) -> int:
        """The number of the last event that wrote a register as it was saved, also one that had that value."""
        back = (
            event.number
            for id, event in self._writes.written_back.items()
            if event.data is not None and id in self._save.state and same(id, self._save.state[id], event.data)
        )
        return max((*self._as_saved, *back), default=0)

    @cached_property
    def _tail(self) -> int:
        """The last of the writes that follow with hardly a gap, perhaps as part of the restore.

        Gaps are writes of what a register was seen to have, which do not count.
        """
        number = self._end
        for later in sorted(attempt.event.number for attempt in self._writes.attempts.values()):
            if number < later <= number + FEW:
                number = later
        return number

    def _is_written_anew(self, number: int) -> bool:
        """Whether many registers were written as saved again after an event: it is in the middle of another pass."""
        attempts = self._writes.attempts
        return sum(attempts[id].times > 1 for event, id in self._as_saved.items() if event > number) >= FEWEST_WRITES

    def _is_looked_at_anew(self, restored: int, seen: Event | None, number: int) -> bool:
        """Whether many registers were read before and after an event: another pass looks and writes what differs."""
        if seen is None or seen.number != number - 1:
            return False
        reads = [*self._writes.looked.values(), *self._writes.reads_since_write.values()]
        before = sum(restored < event.number < seen.number for event in reads)
        return before >= FEWEST_WRITES and sum(event.number > number for event in reads) >= FEWEST_WRITES
