# SPDX-License-Identifier: MIT
"""What a VMM writes to one vCPU between two guest entries, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from kvmabi.events import Event
from kvmabi.order.controllers import Sets
from kvmabi.order.values import RUNNING, SVCR, Values, group_of, same

MOST_VALUES = 8
"""How many different values of one register are remembered: the first ones and the last."""
FEWEST_WRITES = 8
"""How many registers a VMM writes before the writes may be a restore: a boot sets a few."""


class Attempt:
    """The writes of one register.

    ``good`` are the successful ones, the last of equal ones only, oldest first. ``refused`` is the last refused one if
    none succeeded after it. ``gone`` is the event that destroyed the value as a side effect, ``read_back``: the VMM
    read the register after its last successful write, ``asked``: right after it was refused. ``seen`` is the last read
    before the last write, ``times`` counts the successful ones.
    """

    __slots__ = ("asked", "gone", "good", "read_back", "refused", "seen", "times")

    def __init__(self) -> None:
        self.good: list[Event] = []
        self.refused: Event | None = None
        self.gone: Event | None = None
        self.read_back = False
        self.asked = False
        self.seen: Event | None = None
        self.times = 0

    def took(self, event: Event) -> bool:
        """A write succeeded; whether it replaces another value."""
        good = self.good
        self.refused = self.gone = None
        self.read_back = self.asked = False
        self.times += 1
        if not good:
            good.append(event)
            return False
        replaces = good[-1].data != event.data
        if not replaces:
            good[-1] = event
        elif len(good) < MOST_VALUES:
            good.append(event)
        else:
            good[-1] = event
        return replaces

    @property
    def last(self) -> Event | None:
        """The last successful write."""
        return self.good[-1] if self.good else None

    @property
    def written(self) -> bytes | None:
        """The value of the last successful write."""
        return self.good[-1].data if self.good else None

    def once(self, id: int, value: bytes, after: int) -> Event | None:
        """A successful write of this value after event number ``after``, if there was one."""
        for event in self.good:
            if event.number > after and event.data is not None and same(id, value, event.data):
                return event
        return None

    @property
    def event(self) -> Event:
        """The last write, successful or not."""
        return self.refused if self.refused is not None else self.good[-1]

    @property
    def tried(self) -> bytes | None:
        """The value that the VMM tried to write last; None if the kernel refused before it read a value."""
        return self.refused.data if self.refused is not None else self.written

    def values(self, after: int) -> list[bytes]:
        """The values that the VMM tried to write after an event."""
        events = [*self.good, self.refused] if self.refused is not None else self.good
        return [event.data for event in events if event.data is not None and event.number > after]


@dataclass(eq=False)
class Writes:
    """What a VMM wrote to one vCPU from ``start`` (the event of an INIT or a guest entry) on.

    ``fresh``: nothing ran since INIT; ``base`` are the values right after that INIT. ``looked`` are the last reads
    before the last write, by register ID, ``undone`` those of registers that a write has destroyed since, and
    ``written_back`` the last writes of what was read, which change nothing and do not count as attempts. ``seen`` is
    the event at which the VMM had read half of the registers of one state. ``wiped`` are the writes that an INIT undid
    before the guest was entered, ``entry`` is the number of the event that entered it last. ``first`` is the number of
    the first write's event, ``last`` is the last write.

    The end is a guest entry (``entered``), or the close of the vCPU or a question (not): ``state`` is what the vCPU had
    then, ``svcr`` its mode, ``end`` the event's number, ``seconds`` the time on the monotonic clock. A report shows the
    events ``run`` (the entry), ``svcr_write`` (the last write of SVCR) and ``refusal`` (the first refused write).
    ``by_cpu`` has what the CPU has left of registers since the VMM wrote them: ``state`` has them as they were written.
    ``controllers`` is what was written to the VM's interrupt controllers meanwhile.
    """

    vm: int
    vcpu: int
    start: int
    fresh: bool
    base: Values
    wiped: Writes | None = None
    attempts: dict[int, Attempt] = field(default_factory=dict)
    looked: dict[int, Event] = field(default_factory=dict)
    undone: dict[int, Event] = field(default_factory=dict)
    written_back: dict[int, Event] = field(default_factory=dict)
    reads_since_write: dict[int, Event] = field(default_factory=dict)
    entry: int = 0
    first: int = 0
    last: Event | None = None
    seen: int = 0
    replaced: int = 0
    backward: int = 0
    restores: int | None = None
    entered: bool = False
    state: Values = field(default_factory=dict)
    svcr: int = 0
    end: int = 0
    seconds: float = 0.0
    run: Event | None = None
    svcr_write: Event | None = None
    refusal: Event | None = None
    by_cpu: Values = field(default_factory=dict)
    controllers: Sets = field(default_factory=Sets)

    @property
    def place(self) -> tuple[int, int]:
        """The VM and the vCPU."""
        return self.vm, self.vcpu

    def attempt(self, id: int, event: Event) -> None:
        """Process a write, successful or not, of a register or pseudo-register."""
        if self.reads_since_write:
            self.looked.update(self.reads_since_write)
            self.reads_since_write = {}
        before, self.last = self.last, event
        self.first = self.first or event.number
        seen, attempt = self.looked.get(id), self.attempts.get(id)
        if seen is not None and _is_written_back(id, seen, attempt, event):
            self.written_back[id] = event
            return
        if attempt is None:
            attempt = self.attempts[id] = Attempt()
        last = attempt.last
        attempt.seen = seen if last is None or (seen is not None and seen.number > last.number) else None
        if before is not None and before.register is not None and id < before.register:
            self.backward += 1
        if event.errno:
            attempt.refused = event
            attempt.asked = False
            if self.refusal is None:
                self.refusal = event
                event.ask_origin()
            return
        if attempt.took(event):
            self.replaced += 1
        if id == SVCR:
            self.svcr_write = event
            event.ask_origin()
        if event.may_have_effects:
            self._destroyed_by(event)

    def _destroyed_by(self, event: Event) -> None:
        """Note what a write has destroyed of what was written or read before."""
        for lost in event.effects_on(self.looked):
            self.undone[lost.id] = self.looked.pop(lost.id)
        for lost in event.effects_on(self.attempts):
            attempt = self.attempts[lost.id]
            if attempt.good:
                attempt.gone = event

    def read(self, event: Event) -> None:
        """Process a KVM_GET_ONE_REG that succeeded."""
        id = event.register
        assert id is not None
        attempt = self.attempts.get(id)
        if attempt is not None:
            attempt.read_back = True
            if self.last is not None and self.last.number == event.number - 1:
                attempt.asked = True
        self.reads_since_write[id] = event

    @property
    def evidence(self) -> dict[int, Attempt]:
        """The writes that show what is restored: those that an INIT undid, if nothing was written after it."""
        return self.attempts or (self.wiped.attempts if self.wiped is not None else {})

    @cached_property
    def looks(self) -> dict[int, Event]:
        """The last read of each register by which the VMM may have seen that it need not write it; when complete.

        Those before the last write, also of a register that a write has destroyed since. Where the VMM reads registers
        right before it writes them, those that go on after the last write to further registers, too: it finds nothing
        more to write. What an INIT undid counts if nothing was written after it.
        """
        found = self.undone | self.looked
        checks = any(one.seen is not None and one.seen.number == one.event.number - 1 for one in self.attempts.values())
        for id, event in self.reads_since_write.items() if checks else ():
            if id in found or id in self.attempts:
                break
            found[id] = event
        return found if self.attempts or self.wiped is None else self.wiped.looks

    @property
    def unlike_init(self) -> list[int]:
        """The registers that were written with another value than they have after INIT."""
        tried = ((id, attempt.tried) for id, attempt in self.evidence.items())
        return [id for id, value in tried if value is not None and not same(id, value, self.base.get(id))]

    @cached_property
    def sample(self) -> dict[int, Attempt]:
        """One register of each group whose value after INIT is not the one written; for writes that are complete."""
        sample: dict[str, tuple[int, Attempt]] = {}
        for id, attempt in self.evidence.items():
            tried = attempt.tried
            if tried is not None and any(tried) and not same(id, tried, self.base.get(id)):
                sample[group_of(id)] = id, attempt
        return dict(sample.values())

    @cached_property
    def sampled(self) -> dict[int, list[bytes]]:
        """What was tried to write to the registers of the sample."""
        return {id: attempt.values(0) for id, attempt in self.sample.items()}

    @property
    def explores(self) -> bool:
        """Whether the VMM overwrites its own writes in no order, as a fuzzer does and no restore."""
        count = len(self.attempts)
        return self.replaced >= max(3, count // 20) and self.backward * 4 > count

    @property
    def gave_up(self) -> bool:
        """Whether the guest was not entered and the last write is the first that was refused: the VMM gave up there."""
        return not self.entered and self.refusal is not None and self.last is self.refusal

    def destroyed(self) -> Iterator[tuple[int, Attempt]]:
        """What was written and is not there now, or was refused and never written, by register ID.

        What the VMM read back after it was written, or right after it was refused, it knows; so it does what a write
        destroyed before it read the whole state.
        """
        for id, attempt in self.attempts.items():
            now = self.state.get(id)
            if attempt.refused is not None:
                tried = attempt.refused.data if attempt.refused.data is not None else attempt.written
                if not attempt.asked and (tried is None or not same(id, tried, now)):
                    yield id, attempt
            elif attempt.gone is not None and not attempt.read_back and attempt.gone.number > self.seen:
                written = attempt.written
                if written is not None and not same(id, written, now):
                    yield id, attempt


def _is_written_back(id: int, seen: Event, attempt: Attempt | None, event: Event) -> bool:
    """Whether the VMM writes the value that it has read since it last wrote the register: that changes nothing."""
    last = attempt.last if attempt is not None else None
    if event.errno or event.data is None or seen.data is None or id in RUNNING:
        return False
    if attempt is not None and attempt.refused is not None:
        return False
    return (last is None or seen.number > last.number) and same(id, seen.data, event.data)
