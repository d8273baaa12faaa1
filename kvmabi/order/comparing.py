# SPDX-License-Identifier: MIT
"""Compares a restored vCPU with the save, register by register, and says of each that differs why."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from kvmabi import regid
from kvmabi.events import Event
from kvmabi.order.findings import Loss
from kvmabi.order.saves import Save
from kvmabi.order.values import CNTVCT, RUNNING, SVCR, VLS, is_cut, is_reversed, name_of, same
from kvmabi.order.writes import FEWEST_WRITES, Attempt, Writes

TOLERANCE_SECONDS = 60
"""How far the guest's time may be from where it should be."""
VECTORS = ("sve", "sme")
ENOUGH = 4
"""How many registers must hold another save's values before a later write of them is a mistake, not an edit."""
UNRESTORED_MODE = frozenset({"za-off", "absent", "destroyed"})
"""Causes that follow from a mode that was not restored."""


class Difference(NamedTuple):
    """A register that was lost, why (a key of CAUSES), and the events that show it."""

    cause: str
    loss: Loss
    shown: tuple[Event, ...] = ()

    @property
    def event(self) -> int:
        """The number of the event that decided it; differences with the same cause and event are one finding."""
        return self.shown[-1].number if self.cause == "destroyed" else 0


class Comparison:
    """A restored vCPU against a save.

    ``others`` are the other saves of the same source VM. ``edits`` counts the registers that were restored as saved
    and then written again on purpose, ``doubtful`` are the names of those of which this cannot be told.
    """

    def __init__(self, writes: Writes, save: Save, others: Sequence[Save] = (), counter_hz: int = 0) -> None:
        self.writes = writes
        self.save = save
        self.edits = 0
        self.doubtful: list[str] = []
        self._counter_hz = counter_hz
        self._siblings = [other for other in others if other.vcpu != save.vcpu]
        self._older = [other for other in others if other.vcpu == save.vcpu and other is not save]

    def differences(self) -> list[Difference]:
        """What was lost, in the order of the save's state."""
        self.edits = 0
        self.doubtful = []
        found = [*self._each(), *self._time()]
        if not any(difference.cause == "mode" for difference in found):
            return found
        return [
            difference._replace(loss=difference.loss._replace(consequence=True))
            if difference.cause in UNRESTORED_MODE
            else difference
            for difference in found
        ]

    def _each(self) -> Iterator[Difference]:
        writes = self.writes
        for id, saved in self.save.state.items():
            if id in RUNNING:
                continue
            now, attempt = writes.state.get(id), writes.attempts.get(id)
            if not same(id, saved, now):
                difference = self._unequal(id, saved, attempt)
                if difference is None:
                    self.edits += name_of(id) not in self.doubtful
                else:
                    yield difference
            elif id in VLS and attempt is not None and attempt.refused is not None and not attempt.good:
                yield self._difference("vls-late-equal", id, _refused(attempt.refused), attempt.refused)

    # --- why

    def _unequal(self, id: int, saved: bytes, attempt: Attempt | None) -> Difference | None:
        """Why a register does not have the saved value; None if it was written again on purpose."""
        if attempt is None:
            return self.not_attempted(id)
        if id == SVCR:
            return self._difference("mode", id, f"left at svcr = {self.writes.svcr:#x}", *_events(attempt))
        if attempt.refused is not None:
            return self.refusal(id, attempt.refused)
        written = attempt.written or b""
        if attempt.gone is not None:
            return self.destroyed(id, attempt)
        if same(id, saved, written):
            return self._accepted(id, attempt)
        return self._another_value(id, saved, written, attempt)

    def not_attempted(self, id: int) -> Difference:
        """A register that was not written."""
        writes, save = self.writes, self.save
        undone = writes.wiped.attempts.get(id) if writes.wiped is not None else None
        if undone is not None and undone.good:
            return self._difference(
                "init", id, f"set before KVM_ARM_VCPU_INIT (event {writes.start})", *undone.good[-1:]
            )
        if id in save.reads:
            why = "the save read it"
        elif id in save.earlier:
            why = "the save read it before the guest ran on"
        else:
            if id == SVCR:
                return self._difference("mode", id, f"saved at svcr = {self._saved_svcr:#x}, never read or written")
            return self._difference("not-saved", id, "the save never read it")
        if id == SVCR:
            return self._difference("mode", id, f"{why}, and it was never written")
        forgotten = not writes.attempts and writes.wiped is None
        return self._difference("vcpu-forgotten" if forgotten else "never-written", id, why)

    def destroyed(self, id: int, attempt: Attempt) -> Difference:
        """A value that a later write, usually of SVCR, destroyed."""
        gone = attempt.gone
        assert gone is not None
        if gone.register == SVCR:
            why = f"event {gone.number} wrote svcr = {gone.svcr:#x} after it was set"
            return self._difference("destroyed", id, why, *attempt.good[-1:], gone)
        what = gone.what if gone.register is None else name_of(gone.register)
        why = f"the write of {what} at event {gone.number} changed it"
        return self._difference("kept-other", id, why, *attempt.good[-1:], gone)

    def refusal(self, id: int, refused: Event) -> Difference:
        """A value that was refused."""
        return self._difference(_cause_of_refusal(id, refused), id, _refused(refused), refused)

    def _accepted(self, id: int, attempt: Attempt) -> Difference:
        if id not in self.writes.state:
            return self._difference(
                "absent", id, "written as saved, and not visible in the final mode", *attempt.good[-1:]
            )
        return self._difference("kept-other", id, "written as saved, and another value is there", *attempt.good[-1:])

    def _another_value(self, id: int, saved: bytes, written: bytes, attempt: Attempt) -> Difference | None:
        last = attempt.good[-1]
        if id not in self.save.reads and same(id, written, self.save.earlier.get(id)):
            return self._difference("torn", id, "the guest ran on after the save had read it", last)
        restored = self._was_restored(id, attempt)
        for cause, other, enough in self._other_saves:
            if self._is_of(id, other, written, telling=not enough) and (enough or not restored):
                what = f"vCPU {other.vcpu}" if cause == "wrong-vcpu" else "an older save"
                age = ", a newer one" if cause == "older-save" and other.first_event > self.save.first_event else ""
                why = f"the value saved of {what} (events {other.first_event}-{other.last_event}{age})"
                return self._difference(cause, id, why, last)
        if restored:
            return None
        return self._difference(*self._mistake(id, saved, written, last), last)

    def _was_restored(self, id: int, attempt: Attempt) -> bool:
        """Whether a register had the saved value, and was then written again on purpose.

        It was written as saved; or it was left alone because it had the value, and written after the restore was done.
        """
        saved, last = self.save.state[id], attempt.good[-1].number
        if attempt.once(id, saved, self.save.after) is not None:
            return not self._written_anew(last)
        if last <= self._end:
            return False
        if is_cut(saved, attempt.written or b"") or is_reversed(saved, attempt.written or b""):
            return False
        seen = attempt.seen
        if seen is not None:
            return seen.data is not None and same(id, saved, seen.data) and seen.number < last - 1
        had_it = attempt.once(id, saved, 0) is not None or same(id, saved, self.writes.base.get(id))
        if had_it and last == self._end + 1 and self._place(id) > self._place(self._last):
            self.doubtful.append(name_of(id))
        return had_it

    def _mistake(self, id: int, saved: bytes, written: bytes, last: Event) -> tuple[str, int, str]:
        """The cause and the reason of a value that is neither the saved one nor another save's."""
        if is_cut(saved, written):
            length = _length(saved)
            if len(written) < length:
                return "cut", id, f"{len(written)} of {length} bytes written, in mode {last.mode}"
            kept = len(written.rstrip(b"\0"))
            return "cut-by-vmm", id, f"the first {kept} of {length} bytes are as saved, the rest was written as zero"
        if is_reversed(saved, written):
            return "byte-order", id, "the bytes of the saved value in another order"
        source = self._by_value.get(written.rstrip(b"\0"))
        if source is not None and len(written) == len(self.save.state[source]):
            return "shifted", id, f"it has the value that was saved for {name_of(source)}"
        return "changed", id, "the VMM wrote another value"

    # --- look-ups

    @property
    def _saved_svcr(self) -> int:
        return int.from_bytes(self.save.state.get(SVCR, b""), "little")

    @cached_property
    def _by_value(self) -> dict[bytes, int]:
        """The registers of the save by their values, zero and small ones left out."""
        values = {value.rstrip(b"\0"): id for id, value in self.save.state.items()}
        return {value: id for value, id in values.items() if len(value) > 1}

    @cached_property
    def _restored(self) -> dict[int, int]:
        """The registers that were written as saved, and the numbers of the events."""
        found = {}
        for id, attempt in self.writes.attempts.items():
            saved, last = self.save.state.get(id), attempt.last
            if last is None or saved is None or last.data is None or last.number <= self.save.after:
                continue
            if same(id, saved, last.data):
                found[last.number] = id
        return found

    def _written_anew(self, number: int) -> bool:
        """Whether many registers were written as saved again after an event: it is in the middle of another pass."""
        attempts = self.writes.attempts
        return sum(attempts[id].times > 1 for event, id in self._restored.items() if event > number) >= FEWEST_WRITES

    @property
    def _end(self) -> int:
        """The number of the last event that wrote a register as it was saved."""
        return max(self._restored, default=0)

    @property
    def _last(self) -> int:
        """The register that was written then."""
        return self._restored.get(self._end, 0)

    def _place(self, id: int) -> int:
        """The place of a register in the order in which the save read it."""
        return self._places.get(id, -1)

    @cached_property
    def _places(self) -> dict[int, int]:
        return {id: place for place, id in enumerate(self.save.reads)}

    @cached_property
    def _other_saves(self) -> list[tuple[str, Save, bool]]:
        """The other saves with the cause that their values show, the likeliest first.

        The third says whether so many registers hold values of it that writing them is a mistake, not an edit.
        """
        counted = [
            (sum(self._holds(id, attempt, other) for id, attempt in self.writes.attempts.items()), cause, other)
            for cause, saves in (("wrong-vcpu", self._siblings), ("older-save", self._older))
            for other in saves
        ]
        counted.sort(key=lambda found: -found[0])
        return [(cause, other, count >= ENOUGH) for count, cause, other in counted if count]

    def _holds(self, id: int, attempt: Attempt, other: Save) -> bool:
        """Whether a register that differs from the save was given another save's value."""
        written, saved = attempt.written, self.save.state.get(id)
        if written is None or saved is None or same(id, saved, written):
            return False
        return self._is_of(id, other, written, telling=True)

    def _is_of(self, id: int, other: Save, written: bytes, *, telling: bool) -> bool:
        """Whether a value is another save's; ``telling``: and could not be that of just any save."""
        value = other.state.get(id)
        if value is None or (telling and (not any(value) or same(id, value, self.writes.base.get(id)))):
            return False
        return same(id, value, written)

    def _difference(self, cause: str, id: int, why: str, *shown: Event) -> Difference:
        attempt = self.writes.attempts.get(id)
        written = attempt.tried if attempt is not None else None
        numbers = tuple(event.number for event in shown)
        loss = Loss(name_of(id), id, numbers, why, self.save.state.get(id), written, self.writes.state.get(id))
        return Difference(cause, loss, shown)

    # --- time

    def _time(self) -> Iterator[Difference]:
        """The guest's time, if it goes back, or runs ahead without having been written so."""
        saved, now = self.save.state.get(CNTVCT), self.writes.state.get(CNTVCT)
        if not self._counter_hz or saved is None or now is None or CNTVCT not in self.writes.state:
            return
        attempt = self.writes.attempts.get(CNTVCT)
        ticks = int.from_bytes(now, "little") - int.from_bytes(saved, "little")
        tolerance = TOLERANCE_SECONDS * self._counter_hz
        passed = 0 if self.save.from_run else int((self.writes.seconds - self.save.seconds) * self._counter_hz)
        ahead = ticks > passed + tolerance and attempt is None and not self.save.from_run
        if ticks < -tolerance or ahead:
            way = "back" if ticks < 0 else "ahead"
            yield self._difference("time", CNTVCT, f"the count goes {way} by {abs(ticks):#x} ticks", *_events(attempt))


def writes_time(writes: Writes, save: Save) -> bool:
    """Whether a vCPU was given the guest's time as it was saved, which all vCPUs of a VM share."""
    saved, attempt = save.state.get(CNTVCT), writes.attempts.get(CNTVCT)
    if saved is None or attempt is None:
        return False
    return any(event.data == saved and event.number > save.after for event in attempt.good)


def _cause_of_refusal(id: int, refused: Event) -> str:
    """The cause of a value that was refused."""
    family = "" if id >> 64 else regid.decode(id).family
    if id in VLS and refused.errno == errno.EPERM:
        return "vls-late"
    if refused.errno == errno.EBUSY and family == "sme":
        return "za-off"
    return "absent" if refused.errno == errno.ENOENT and family in VECTORS else "refused"


def _refused(event: Event) -> str:
    return f"refused with {errno.errorcode.get(event.errno, event.errno)}: {event.reason}"


def _events(attempt: Attempt | None) -> tuple[Event, ...]:
    if attempt is None:
        return ()
    return (attempt.refused,) if attempt.refused is not None else tuple(attempt.good[-1:])


def _length(value: bytes) -> int:
    """The length in bytes that a vector probably had: what is not zero, up to a power of two."""
    used = len(value.rstrip(b"\0"))
    return min(len(value), 1 << max(0, used - 1).bit_length())
