# SPDX-License-Identifier: MIT
"""What a vGICv3 keeps: the state of its interrupts, of each vCPU's redistributor, and of the distributor.

A word has a bit for each of 32 interrupts, the lowest first. The values here are those after
KVM_DEV_ARM_VGIC_CTRL_INIT.
"""

from __future__ import annotations

from typing import Final

ALL: Final = (1 << 32) - 1
IRQS_OF_A_WORD: Final = 32
SGIS: Final = 0xFFFF
"""The software-generated interrupts, 0 to 15, of a vCPU's first word."""
REVISIONS: Final = (2, 3)
"""What GICD_IIDR's revision can be set to; the last is the one at the beginning."""
BASER_RESET: Final = 0x580
"""Inner shareable, read-allocate and write-back."""


class Irqs:
    """32 interrupts, a word for each property, and 4 priorities in each of 8 words.

    ``latch`` is what makes an interrupt pending other than its line: an edge, or a write of userspace. ``edge``: it is
    edge-triggered; otherwise the level of its ``line`` counts, which is kept in both cases.
    """

    __slots__ = ("active", "edge", "enabled", "group", "latch", "line", "priorities")

    def __init__(self, *, enabled: int = 0, edge: int = ALL) -> None:
        self.group = ALL
        self.enabled = enabled
        self.edge = edge
        self.latch = self.active = self.line = 0
        self.priorities = [0] * 8

    def inject(self, bit: int, *, level: bool) -> None:
        """The line of an interrupt goes high or low: an edge is latched, a level is kept."""
        if not self.edge >> bit & 1:
            self.line = self.line & ~(1 << bit) | level << bit
        elif level:
            self.latch |= 1 << bit


class Redistributor:
    """A vCPU's own interrupts, of which ``mapped`` are a word of those that are the host's, and its table of LPIs."""

    __slots__ = ("irqs", "lpis_enabled", "mapped", "pendbaser")

    def __init__(self) -> None:
        self.irqs = Irqs(enabled=SGIS, edge=SGIS)
        self.mapped = 0
        self.lpis_enabled = False
        self.pendbaser = BASER_RESET


class GicState:
    """The registers of a vGIC's frames; ``has_its``: the VM has an ITS, so there are LPIs."""

    def __init__(self, *, has_its: bool = False) -> None:
        self.enabled = False
        self.revision = REVISIONS[-1]
        self.has_its = has_its
        self.propbaser = BASER_RESET if has_its else 0
        self.spis: list[Irqs] = []
        self.routers: dict[int, int] = {}
        self.redistributors: dict[int, Redistributor] = {}

    def size(self, irqs: int) -> None:
        """The vGIC is initialised with this number of interrupts."""
        self.spis = [Irqs() for _ in range(irqs // IRQS_OF_A_WORD - 1)]

    def add_its(self) -> None:
        """An ITS was created, which sets GICR_PROPBASER to its first value."""
        self.has_its = True
        self.propbaser = BASER_RESET

    def redistributor(self, vcpu: int) -> Redistributor:
        """The redistributor of the vCPU with an ID."""
        found = self.redistributors.get(vcpu)
        if found is None:
            found = self.redistributors[vcpu] = Redistributor()
        return found

    def irqs(self, irq: int, vcpu: int) -> Irqs:
        """The 32 interrupts of which one is ``irq``; the first are the vCPU's own."""
        word = irq // IRQS_OF_A_WORD
        return self.spis[word - 1] if word else self.redistributor(vcpu).irqs
