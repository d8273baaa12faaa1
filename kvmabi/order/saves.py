# SPDX-License-Identifier: MIT
"""What a VMM saves: the reads of a vCPU in one state."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from kvmabi.events import Event
from kvmabi.order.controllers import Reads
from kvmabi.order.values import RUNNING, Values, same

FEWEST_READS = 8
"""How many registers are read before the reads count as a save: debuggers and probes read a few."""

MOST_COUNTERS = 64
"""How many values of counters are remembered of one state, which may be read for ever."""


@dataclass(eq=False)
class Save:
    """The reads of one vCPU in one state.

    ``state`` is the whole state at the time, also what was not read. ``reads`` are the numbers of the events that read,
    by register ID; ``earlier`` those of reads in earlier states, which a VMM may have kept (a torn save). ``state`` of
    ``before``, the save of the state before, is what those gave. ``seconds`` is when it began, on the monotonic clock.
    ``again`` are the numbers of the events at which the VMM began to read the same state once more: from a register
    that it had read already.
    ``counters`` are the first values that were read of registers which run by themselves, with the events' numbers.
    ``controllers`` is what the VMM read of the VM's interrupt controllers in that state.
    ``opened_by`` is an event of the save, ``label`` what a VMM that declared it calls it (None: inferred),
    ``from_run`` the run that it was made in, "" for this one.
    """

    vm: int
    vcpu: int
    state: Values
    reads: dict[int, int]
    earlier: Values
    seconds: float
    opened_by: Event | None = None
    label: int | None = None
    from_run: str = ""
    first_event: int = 0
    last_event: int = 0
    again: list[int] = field(default_factory=list)
    counters: dict[tuple[int, bytes], int] = field(default_factory=dict)
    controllers: Reads = field(default_factory=Reads)

    def __post_init__(self) -> None:
        self.first_event = self.first_event or min(self.reads.values(), default=0)
        self.last_event = max(self.last_event, self.first_event)

    @property
    def place(self) -> tuple[int, int]:
        """The VM and the vCPU that it is of."""
        return self.vm, self.vcpu

    @property
    def after(self) -> int:
        """The number of the event after which it can be restored."""
        return 0 if self.from_run else self.first_event

    @property
    def known(self) -> Set[int]:
        """The IDs whose values the VMM has: those read in this state, and those read before and not again."""
        return self.reads.keys() | self.earlier.keys()

    @property
    def is_large(self) -> bool:
        """Whether it has at least half of the registers that there are: a debugger reads a few."""
        return 2 * len(self.known) >= len(self.state)

    @property
    def is_torn(self) -> bool:
        """Whether the VMM has a value that is not the one of this state."""
        old = ((id, value) for id, value in self.earlier.items() if id not in self.reads and id in self.state)
        return any(not same(id, self.state[id], value) for id, value in old)

    def went_on_in(self, other: Save) -> bool:
        """Whether the reads went on in a later state, without repetition: it is the beginning of a torn save."""
        went_on = self.known <= other.earlier.keys() and not self.reads.keys() & other.reads.keys()
        return self.place == other.place and went_on

    def value_read(self, id: int) -> bytes | None:
        """The value of a register that the VMM got, which is an older one where the save is torn."""
        return self.state.get(id) if id in self.reads else self.earlier.get(id)


class Reader:
    """Follows the reads of one vCPU and opens a save where there are enough of one state."""

    def __init__(self) -> None:
        self.save: Save | None = None
        self._reads: dict[int, int] = {}
        self._changed = True
        self._began = 0
        self._count = 0
        self._counters: dict[tuple[int, bytes], int] = {}

    def changed(self) -> None:
        """The vCPU may have changed since the last read."""
        self._changed = True

    def read(self, event: Event) -> bool:
        """Process a KVM_GET_ONE_REG that succeeded; whether the reads of this state have just become a save."""
        id = event.register
        assert id is not None
        if self._changed:
            self._changed = False
            self._reads = {}
            self._began, self._count, self._counters = event.number, 0, {}
        if id in RUNNING and event.data is not None and len(self._counters) < MOST_COUNTERS:
            self._counters.setdefault((id, event.data), event.number)
        save, before = self.save, self._reads.get(id, 0)
        self._reads[id] = event.number
        if save is not None and save.reads is self._reads:
            save.last_event = event.number
            if before >= self._began:
                self._began, self._count = event.number, 0
            self._count += 1
            if self._count == FEWEST_READS and self._began > save.first_event:
                save.again.append(self._began)
        return len(self._reads) >= FEWEST_READS and (save is None or save.reads is not self._reads)

    def has_read(self, count: int) -> bool:
        """Whether so many registers were read in the present state."""
        return len(self._reads) >= count

    def note(self, id: int, number: int) -> None:
        """A pseudo-register was read, which does not open a save."""
        if self._changed:
            self._changed = False
            self._reads = {}
            self._began, self._counters = number, {}
        self._reads[id] = number

    def open(self, save: Save) -> None:
        """The present reads are those of this save."""
        save.counters.update(self._counters)
        self._reads, self._counters = save.reads, save.counters
        self.save = save

    @property
    def reads(self) -> dict[int, int]:
        """The numbers of the events that read the present state, by register ID."""
        return self._reads
