# SPDX-License-Identifier: MIT
"""Feature bits that a VMM takes for another feature: KVM_ARM_VCPU_INIT by a number that this kernel uses otherwise.

A VMM that asks KVM_CHECK_EXTENSION for the capability of what the bit means here knows what it asks for. One that does
not, and whose other features allow what the bit means on another kernel, is reported; one that then accesses registers
of that other feature, which the vCPU lacks, has mistaken it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kvmabi.events import Event
from kvmabi.order.findings import LINES_SHOWN, Finding
from kvmabi.profiles import Kernel, featurebits
from kvmabi.profiles import features as feature_rules

CHECK, INIT = "KVM_CHECK_EXTENSION", "KVM_ARM_VCPU_INIT"
ACCESSES = frozenset({"KVM_GET_ONE_REG", "KVM_SET_ONE_REG"})
MOST = 64
"""How many vCPUs are followed: one finding says what is wrong with all of a VMM."""


@dataclass
class Suspect:
    """One bit of a vCPU's INIT: its meaning ``here`` and ``elsewhere``, "" where this kernel knows none."""

    bit: int
    here: str
    elsewhere: str
    event: Event
    lines: list[str] = field(default_factory=list)

    @property
    def is_mistaken(self) -> bool:
        """Whether the VMM accessed a register of the other feature."""
        return len(self.lines) > 1

    @property
    def is_open(self) -> bool:
        """Whether the INIT worked, and more lines would say something new."""
        return not self.event.errno and len(self.lines) <= LINES_SHOWN


class FeatureBits:
    """Reads the events of a kernel's VMs; ``findings`` says which bits were mistaken."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._numbers = {feature.capability for feature in kernel.features.values()}
        self._checked: set[int] = set()
        self._suspects: dict[tuple[int | None, int | None], list[Suspect]] = {}

    def watch(self, event: Event) -> None:
        """Process an event."""
        if event.what == CHECK:
            if event.argument is not None and event.argument in self._numbers:
                self._checked.add(event.argument)
        elif event.what == INIT:
            self._init(event)
        elif self._suspects and event.what in ACCESSES and event.register is not None:
            self._access(event, event.register)

    def _init(self, event: Event) -> None:
        bits = {bit for bit in range((event.argument or 0).bit_length()) if (event.argument or 0) >> bit & 1}
        place = event.vm, event.vcpu
        if place in self._suspects or len(self._suspects) >= MOST:
            return
        names = {name for bit in bits for name in featurebits.meanings(bit)}
        suspects = []
        for bit in sorted(bits):
            own = featurebits.here(self._kernel, bit)
            number = self._kernel.features[own].capability if own else None
            if number in self._checked:
                continue
            suspects += [
                Suspect(bit, own, feature, event, [str(event)])
                for feature in featurebits.elsewhere(self._kernel, bit)
                if names.issuperset(feature_rules.table()[feature].needs) and (own or feature in self._kernel.features)
            ]
        if suspects:
            self._suspects[place] = suspects

    def _access(self, event: Event, id: int) -> None:
        """A register of what the bit means here shows that the VMM knows it; of what it means elsewhere, that not."""
        suspects = self._suspects.get((event.vm, event.vcpu), [])
        for suspect in [*suspects]:
            if suspect.here and featurebits.belongs_to(id, suspect.here):
                suspects.remove(suspect)
            elif event.errno and suspect.is_open and featurebits.belongs_to(id, suspect.elsewhere):
                suspect.lines.append(str(event))

    def findings(self) -> Iterator[Finding]:
        """The findings until now: the first vCPU of each, which stands for all."""
        found: dict[tuple[int, str, bool], list[tuple[int, int, Suspect]]] = {}
        for (vm, vcpu), suspects in self._suspects.items():
            for suspect in suspects:
                key = suspect.bit, suspect.elsewhere, suspect.is_mistaken
                found.setdefault(key, []).append((vm or 0, vcpu or 0, suspect))
        for (vm, vcpu, suspect), *others in found.values():
            notes = [self._got(suspect), featurebits.in_words(self._kernel, suspect.bit)]
            if others:
                notes.append(f"so did {len(others)} more vCPU{'s' if len(others) > 1 else ''}")
            cause = "bit-mistaken" if suspect.is_mistaken else "bit-unchecked"
            yield Finding(cause, vm, vcpu, (), lines=tuple(suspect.lines), notes=tuple(notes))

    def _got(self, suspect: Suspect) -> str:
        """What the VMM got by the bit."""
        asked = f"the VMM asked for feature bit {suspect.bit}"
        if not suspect.here:
            return f"{asked}, which {self._kernel.name} does not know"
        number = self._kernel.features[suspect.here].capability
        unchecked = "" if number is None else f" without asking for its capability, {number}"
        got = "and was refused" if suspect.event.errno else "and the vCPU has it"
        return f"{asked}{unchecked}: on {self._kernel.name} that is {suspect.here.upper()}, {got}"
