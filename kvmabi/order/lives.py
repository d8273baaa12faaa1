# SPDX-License-Identifier: MIT
"""What the checker remembers of a vCPU: a life from INIT to the next INIT, and the saves taken of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvmabi.events import Event

Values = Mapping[int, bytes]


class Write(NamedTuple):
    """A KVM_SET_ONE_REG: its event's number and the bytes that were read of the VMM."""

    event: int
    data: bytes


class Refused(NamedTuple):
    """A KVM_SET_ONE_REG that failed: the event, the errno and the reason."""

    event: int
    errno: int
    reason: str


class Destroyed(NamedTuple):
    """A value that a later write of SVCR took away: who had set it, and the write."""

    set_by: int
    svcr_write: int
    svcr: int


@dataclass(eq=False)
class Save:
    """Reads of one vCPU with no change in between: what a VMM would keep.

    ``values`` by register id in the order they were read, ``svcr`` the mode, ``state`` every register
    in view at the time and ``reset`` every register right after INIT.
    """

    first_event: int
    svcr: int
    state: Values
    reset: Values
    values: dict[int, bytes] = field(default_factory=dict)


@dataclass(eq=False)
class Life:
    """A vCPU from one KVM_ARM_VCPU_INIT to the next; ``reset`` is every register right after INIT.

    ``writes``, ``refused`` and ``destroyed`` hold the latest of a register that still counts: a write
    that succeeds mends what was refused or destroyed before.
    """

    vm: int
    vcpu: int
    reset: Values
    writes: dict[int, Write] = field(default_factory=dict)
    refused: dict[int, Refused] = field(default_factory=dict)
    destroyed: dict[int, Destroyed] = field(default_factory=dict)
    save: Save | None = None

    def wrote(self, event: Event) -> None:
        """Take in a KVM_SET_ONE_REG."""
        id = event.register
        if id is None:
            return
        if event.errno:
            self.refused[id] = Refused(event.number, event.errno, event.reason)
            return
        self.save = None
        self.refused.pop(id, None)
        self.destroyed.pop(id, None)
        self.writes[id] = Write(event.number, event.data or b"")
        for lost in event.effects:
            if lost.set_by is not None:
                self.destroyed[lost.id] = Destroyed(lost.set_by, event.number, event.svcr)

    def read(self, event: Event) -> Save | None:
        """Take in a KVM_GET_ONE_REG; tells the save that it opens, if it opens one."""
        if event.errno or event.register is None:
            return None
        opened = None
        if self.save is None:
            opened = self.save = Save(event.number, event.svcr, event.state or {}, self.reset)
        self.save.values[event.register] = event.data or b""
        return opened

    def forget(self) -> None:
        """Start anew after a verdict: the guest has run, what was restored is used up."""
        self.writes.clear()
        self.refused.clear()
        self.destroyed.clear()
        self.save = None
