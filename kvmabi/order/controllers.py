# SPDX-License-Identifier: MIT
"""What a VMM reads and writes of a VM's interrupt controllers between two guest entries, and what became of it.

The registers of a vGICv3 and its ITS are attributes of devices (gicnames.REGISTERS). They belong to the VM, not to a
vCPU; which save of them was restored follows from the vCPUs' saves.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kvmabi import gicnames
from kvmabi.events import Event
from kvmabi.order.findings import Loss

Attribute = tuple[int, int]
"""Group and number of a device's attribute."""
WORD_BITS = 32
ID_SHIFT = 96
"""Above it a loss of an attribute has the group, below the number: no register's ID is that large."""
CHANGING = frozenset({"gits_creadr"})
"""Registers that follow from others: an ITS reads its queue."""
_INNER, _OUTER, _SHARED = 0x7 << 7, 0x7 << 56, 0x3 << 10
CHOSEN_BITS = {
    "gits_cbaser": 0x7 << 59 | 0x7 << 53 | _SHARED,
    "gits_baser": 0x7 << 59 | 0x7 << 53 | _SHARED,
    "gicr_propbaser": _INNER | _OUTER | _SHARED,
    "gicr_pendbaser": _INNER | _OUTER | _SHARED,
}
"""Bits that KVM chooses whenever the register is written: how a table's memory is cached and shared."""


@dataclass(eq=False)
class Reads:
    """The registers of a VM's interrupt controllers that a VMM read in one state: values, and numbers of events."""

    values: dict[Attribute, bytes] = field(default_factory=dict)
    events: dict[Attribute, int] = field(default_factory=dict)

    def read(self, attribute: Attribute, value: bytes, number: int) -> None:
        """Process a KVM_GET_DEVICE_ATTR that succeeded."""
        self.values[attribute] = value
        self.events[attribute] = number


@dataclass(eq=False)
class Sets:
    """What a VMM wrote to the registers of a VM's interrupt controllers since the VM's last guest entry.

    ``good`` has the last write of each that succeeded, ``refused`` the last one if it failed. ``state`` is what all
    registers were when the guest was entered, None before that.
    """

    good: dict[Attribute, Event] = field(default_factory=dict)
    refused: dict[Attribute, Event] = field(default_factory=dict)
    state: Mapping[Attribute, bytes] | None = None
    late: dict[Attribute, Event] = field(default_factory=dict)

    def write(self, attribute: Attribute, event: Event) -> None:
        """Process a KVM_SET_DEVICE_ATTR, successful or not."""
        if event.errno:
            self.refused[attribute] = event
        else:
            self.refused.pop(attribute, None)
            self.good[attribute] = event


class Controllers:
    """Follows the interrupt controllers of one VM. ``reads`` and ``sets`` are those since the last guest entry."""

    def __init__(self) -> None:
        self.reads = Reads()
        self.sets = Sets()
        self._before: Sets | None = None

    def got(self, attribute: Attribute, event: Event) -> None:
        """KVM_GET_DEVICE_ATTR of a register."""
        if not event.errno and event.data is not None:
            self.reads.read(attribute, event.data, event.number)

    def set(self, attribute: Attribute, event: Event) -> None:
        """KVM_SET_DEVICE_ATTR of a register: what is read from now on is of another state."""
        if self.reads.values:
            self.reads = Reads()
        self.sets.write(attribute, event)
        self.sets.state = None
        if self._before is not None and not event.errno:
            self._before.late.setdefault(attribute, event)

    def entering(self, event: Event, *, restored: bool) -> None:
        """A vCPU of the VM, perhaps ``restored``, is about to enter the guest: keep what the registers are."""
        sets = self.sets
        if sets.state is None and (restored or sets.good or sets.refused):
            sets.state = event.controllers

    def ran(self) -> None:
        """The guest was entered."""
        if self.sets.state is not None:
            self._before = self.sets
            self.sets = Sets()
        if self.reads.values:
            self.reads = Reads()


def id_of(attribute: Attribute) -> int:
    """The ID under which findings have an attribute: larger than any register's."""
    return attribute[0] << ID_SHIFT | attribute[1]


def register_of(event: Event) -> Attribute | None:
    """The register of an interrupt controller that an event is about, None for another attribute."""
    if event.attribute is None:
        return None
    kind, group, number = event.attribute
    return (group, number) if kind == gicnames.DEVICE and group in gicnames.REGISTERS else None


def lost(reads: Reads, sets: Sets) -> Iterator[tuple[str, Loss, Event | None]]:
    """What a save read and a restore did not bring back: the cause, the register, and the event that shows it."""
    for attribute, saved in reads.values.items():
        now = None if sets.state is None else sets.state.get(attribute)
        name = gicnames.name_of(*attribute)
        if now is None or name in CHANGING or _same(name, saved, now):
            continue
        good, refused = sets.good.get(attribute), sets.refused.get(attribute)
        event = refused or good or sets.late.get(attribute)
        cause, why = _cause(name, saved, good, refused, sets.late.get(attribute))
        numbers = () if event is None else (event.number,)
        written = None if event is None else event.data
        yield cause, Loss(name, id_of(attribute), numbers, why, saved, written, now), event


def _same(name: str, saved: bytes, now: bytes | None) -> bool:
    """Whether a register has its saved value, as far as KVM keeps what is written."""
    base, _, rest = name.partition("[")
    chosen = CHOSEN_BITS.get(base, 0) >> (WORD_BITS if rest.endswith(".high") else 0)
    difference = int.from_bytes(saved, "little") ^ int.from_bytes(now or b"", "little")
    return now is not None and not difference & ~chosen


def _cause(name: str, saved: bytes, good: Event | None, refused: Event | None, late: Event | None) -> tuple[str, str]:
    """Why a register does not have its saved value: a key of CAUSES, and the reason in words."""
    if refused is not None:
        return "gic-refused", f"refused with {errno.errorcode.get(refused.errno, refused.errno)}: {refused.reason}"
    if good is None and late is not None:
        return "gic-late", "written after the guest was entered"
    if good is None:
        return "gic-never-written", "the save read it"
    if _same(name, saved, good.data):
        return "gic-undone", "written as saved, and not there: a later write, or an earlier one, changed what it does"
    return "gic-changed", "written with another value"
