# SPDX-License-Identifier: MIT
"""What the checker remembers of a vCPU: a life from INIT to the next INIT, and the saves taken of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvmabi.events import Event
from kvmabi.profiles import sysregs

Values = Mapping[int, bytes]
RUNNING = sysregs.free_running_ids()
STATUS_BITS = sysregs.status_bits()


def same(id: int, value: bytes, other: bytes | None) -> bool:
    """Whether two values of a register are equal, ignoring free-running bits; None compares unequal."""
    if value == other or id in RUNNING:
        return True
    if other is None or id not in STATUS_BITS:
        return False
    return not (int.from_bytes(value, "little") ^ int.from_bytes(other, "little")) & ~STATUS_BITS[id]


def _unchanged(state: Values, before: Values) -> bool:
    return state.keys() == before.keys() and all(same(id, value, before[id]) for id, value in state.items())


class Write(NamedTuple):
    """A KVM_SET_ONE_REG: its event's number and the bytes read from the VMM."""

    event: int
    data: bytes


class Refused(NamedTuple):
    """A KVM_SET_ONE_REG that failed: the event, the errno and the reason."""

    event: int
    errno: int
    reason: str


class Destroyed(NamedTuple):
    """A value that a later write of SVCR destroyed: the event that set it, the event of the write, and SVCR."""

    set_by: int
    svcr_write: int
    svcr: int


@dataclass(eq=False)
class Save:
    """What a VMM saves of one vCPU: the reads of one state of it.

    ``values`` are the values read, by register ID in the order of the reads; ``svcr`` is the mode; ``state`` holds
    every visible register at the time, and ``reset`` every register right after INIT. A change of the state opens
    another save, which takes over the values read before that are unchanged.
    """

    first_event: int
    svcr: int
    state: Values
    reset: Values
    values: dict[int, bytes] = field(default_factory=dict)

    def take_over(self, before: Save) -> None:
        """Take over the values read for an earlier save that have not changed since."""
        self.values.update({id: value for id, value in before.values.items() if same(id, value, self.state.get(id))})


@dataclass(eq=False)
class Life:
    """A vCPU from one KVM_ARM_VCPU_INIT to the next; ``reset`` is every register right after INIT.

    ``writes``, ``refused`` and ``destroyed`` hold the latest event of a register that still counts: a write that
    succeeds removes the register from ``refused`` and ``destroyed``. ``standing``: by register ID, the event whose
    value the register still has.
    """

    vm: int
    vcpu: int
    reset: Values
    writes: dict[int, Write] = field(default_factory=dict)
    refused: dict[int, Refused] = field(default_factory=dict)
    destroyed: dict[int, Destroyed] = field(default_factory=dict)
    standing: dict[int, int] = field(default_factory=dict)
    save: Save | None = None

    def wrote(self, event: Event) -> None:
        """Process a KVM_SET_ONE_REG."""
        id = event.register
        if id is None:
            return
        if event.errno:
            self.refused[id] = Refused(event.number, event.errno, event.reason)
            return
        self.refused.pop(id, None)
        self.destroyed.pop(id, None)
        self.writes[id] = Write(event.number, event.data or b"")
        for lost in event.effects:
            set_by = self.standing.pop(lost.id, None)
            if set_by is not None:
                self.destroyed[lost.id] = Destroyed(set_by, event.number, event.svcr)
        self.standing[id] = event.number

    def read(self, event: Event) -> Save | None:
        """Process a KVM_GET_ONE_REG; returns the save that it opens, or None."""
        if event.errno or event.register is None or event.data is None:
            return None
        save, opened = self.save, None
        registers = event.registers
        if save is None or (registers is not save.state and not _unchanged(registers, save.state)):
            opened = Save(event.number, event.svcr, registers, self.reset)
            if save is not None and save.svcr == event.svcr:
                opened.take_over(save)
            save = self.save = opened
        current = save.state.get(event.register)
        save.values[event.register] = current if current == event.data else event.data  # store an equal value once
        return opened

    def forget(self) -> None:
        """Start over after a verdict: the guest has run, so the writes before it no longer count."""
        self.writes.clear()
        self.refused.clear()
        self.destroyed.clear()
