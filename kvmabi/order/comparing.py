# SPDX-License-Identifier: MIT
"""Compares a restored vCPU with the save, register by register, and says of each that differs why."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from kvmabi import regid
from kvmabi.events import Event
from kvmabi.order.edits import Edits
from kvmabi.order.findings import Loss
from kvmabi.order.saves import Save
from kvmabi.order.values import CNTVCT, RUNNING, SVCR, VLS, is_cut, is_reversed, name_of, same
from kvmabi.order.writes import FEWEST_WRITES, Attempt, Writes

TOLERANCE_SECONDS = 60
"""How far the guest's time may be from where it should be."""
VECTORS = ("sve", "sme")
MANY, MOST = 16, 0.9
"""How many registers, and what share of those that differ, where their values could be those of just any save."""
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

    ``others`` are the other saves of the same source VM. ``edits`` has the registers that were restored as saved and
    then written again on purpose.
    """

    def __init__(self, writes: Writes, save: Save, others: Sequence[Save] = (), counter_hz: int = 0) -> None:
        self.writes = writes
        self.save = save
        self.edits = Edits(writes, save)
        self._examples: str | None = None
        self._counter_hz = counter_hz
        self._siblings = [other for other in others if other.vcpu != save.vcpu]
        self._older = [other for other in others if other.vcpu == save.vcpu and other is not save]
        self._older = [other for other in self._older if not other.went_on_in(save)]

    def differences(self) -> list[Difference]:
        """What was lost, in the order of the save's state."""
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
            if not same(id, saved, now) and not same(id, saved, writes.by_cpu.get(id)):
                difference = self._unequal(id, saved, attempt)
                if difference is not None:
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
        if writes.wiped is None and len(writes.attempts) < FEWEST_WRITES:
            count = len(writes.attempts)
            why = f"only {count} registers were written" if count else "nothing was restored to this vCPU"
            return self._difference("vcpu-forgotten", id, why)
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
        return self._difference("never-written", id, why)

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
        restored = self.edits.count(id, attempt)
        for cause, other, enough in self._other_saves:
            if self._is_of(id, other, written, telling=not enough) and (enough or not restored):
                what = f"vCPU {other.vcpu}" if cause == "wrong-vcpu" else "an older save"
                age = ", a newer one" if cause == "older-save" and other.first_event > self.save.first_event else ""
                why = f"the value saved of {what} at events {other.first_event}-{other.last_event}{age}"
                return self._difference(cause, id, why, last)
        if restored:
            return None
        return self._difference(*self._mistake(id, saved, written, last), last)

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
            if self._examples is None:
                self._examples = (
                    f"each has a value that was saved for another register, {name_of(id)} that of {name_of(source)}"
                )
            return "shifted", id, self._examples
        return "changed", id, "the VMM wrote another value"

    # --- look-ups

    @property
    def _saved_svcr(self) -> int:
        return int.from_bytes(self.save.state.get(SVCR, b""), "little")

    @cached_property
    def _by_value(self) -> dict[bytes, int]:
        """The registers of the save by their values, without small ones and those that several registers have."""
        count = Counter(value.rstrip(b"\0") for value in self.save.state.values())
        stripped = ((value.rstrip(b"\0"), id) for id, value in self.save.state.items())
        return {value: id for value, id in stripped if len(value) > 1 and count[value] == 1}

    @cached_property
    def _other_saves(self) -> list[tuple[str, Save, bool]]:
        """The other saves with the cause that their values show, the likeliest first.

        The third says whether so many registers hold values of it that writing them is a mistake, not an edit.
        """
        given = {id: attempt.written for id, attempt in self.writes.attempts.items() if self._differs(id, attempt)}
        counted = []
        for cause, saves in (("wrong-vcpu", self._siblings), ("older-save", self._older)):
            for other in saves:
                telling = sum(self._is_of(id, other, value or b"", telling=True) for id, value in given.items())
                equal = sum(self._is_of(id, other, value or b"", telling=False) for id, value in given.items())
                enough = telling >= ENOUGH or (equal >= MANY and equal >= MOST * len(given))
                if telling or enough:
                    counted.append((telling, equal, cause, other, enough))
        counted.sort(key=lambda found: found[:2], reverse=True)
        return [(cause, other, enough) for _, _, cause, other, enough in counted]

    def _differs(self, id: int, attempt: Attempt) -> bool:
        """Whether a register was last given another value than was saved."""
        written, saved = attempt.written, self.save.state.get(id)
        return written is not None and saved is not None and not same(id, saved, written)

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
        if not self._counter_hz or saved is None or now is None:
            return
        attempt = self.writes.attempts.get(CNTVCT)
        ticks = _ticks(now, saved)
        tolerance = TOLERANCE_SECONDS * self._counter_hz
        passed = 0 if self.save.from_run else int((self.writes.seconds - self.save.seconds) * self._counter_hz)
        ahead = ticks > passed + tolerance and attempt is None and not self.save.from_run
        if ticks < -tolerance or ahead:
            way = "back" if ticks < 0 else "ahead"
            yield self._difference("time", CNTVCT, f"the count goes {way} by {abs(ticks):#x} ticks", *_events(attempt))


def writes_time(writes: Writes, save: Save, counter_hz: int) -> bool:
    """Whether a vCPU was given the guest's time as it was saved, which all vCPUs of a VM share."""
    saved, attempt = save.state.get(CNTVCT), writes.attempts.get(CNTVCT)
    if saved is None or attempt is None:
        return False
    tolerance = TOLERANCE_SECONDS * counter_hz
    return any(event.number > save.after and abs(_ticks(event.data, saved)) <= tolerance for event in attempt.good)


def _ticks(now: bytes | None, before: bytes) -> int:
    return int.from_bytes(now or b"", "little") - int.from_bytes(before, "little")


def _cause_of_refusal(id: int, refused: Event) -> str:
    """The cause of a value that was refused."""
    family = "" if id >> 64 else regid.decode(id).family
    if id in VLS and refused.errno == errno.EPERM:
        return "vls-late"
    if refused.errno == errno.EBUSY and family == "sme":
        return "za-off"
    absent = refused.errno in (errno.ENOENT, errno.EPERM) and family in VECTORS
    return "absent" if absent else "refused"


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
