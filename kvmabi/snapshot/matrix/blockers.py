# SPDX-License-Identifier: MIT
"""What still blocks migrations in a fleet whose guests have a common template: tried between every two hosts.

A vCPU of each host, with the template's vector lengths and ID registers, is saved and restored on each other host in
the order of Plan. What is refused there, or listed on one host only, is what blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvmabi import regid
from kvmabi.snapshot.lengths import Lengths
from kvmabi.snapshot.matrix.members import Member
from kvmabi.snapshot.trying import readable, restore

REFUSED, RESET = "refused", "left at reset"


@dataclass(frozen=True)
class Guest:
    """What a fleet's guests have: features, sets of vector lengths in bits, and the template's ID registers."""

    features: frozenset[str]
    sve_bits: Lengths
    sme_bits: Lengths
    template: Mapping[int, int]


@dataclass(frozen=True)
class Blocker:
    """Registers of one fate in some directions: ``effect`` is "refused" or "left at reset" (a host lists them alone).

    ``directions`` are (source, destination).
    """

    registers: tuple[int, ...]
    effect: str
    why: str
    directions: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The registers, runs folded."""
        return regid.ranges(map(regid.name_of, self.registers))

    def as_dict(self) -> dict[str, Any]:
        """The blocker for JSON."""
        return {
            "registers": [regid.name_of(id) for id in self.registers],
            "effect": self.effect,
            "why": self.why,
            "directions": [{"from": source, "to": target} for source, target in self.directions],
        }


def find(members: Sequence[Member], guest: Guest) -> list[Blocker]:
    """What blocks, between every two members that are hosts; what is refused first."""
    saves: dict[str, dict[int, bytes | None]] = {}
    fates: dict[tuple[int, str, str], list[tuple[str, str]]] = {}
    hosts = [member for member in members if member.host]
    template = {id: value.to_bytes(8, "little") for id, value in guest.template.items()}
    for member in hosts:
        with member.vcpu(guest.features, guest.sve_bits, guest.sme_bits) as vcpu:
            restore(vcpu, template)  # a refusal is found again on the destination
            saves[member.name] = readable(vcpu)
    for source in hosts:
        for target in hosts:
            if source is target:
                continue
            direction = source.name, target.name
            for id, why in _refused(target, guest, saves[source.name]).items():
                fates.setdefault((id, REFUSED, why), []).append(direction)
            for id in saves[target.name].keys() - saves[source.name].keys():
                fates.setdefault((id, RESET, "the source's list does not have it"), []).append(direction)
    return _folded(fates)


def _refused(target: Member, guest: Guest, saved: Mapping[int, bytes | None]) -> dict[int, str]:
    """What a host refuses of a save: register to error."""
    values = {id: data for id, data in saved.items() if data is not None}
    with target.vcpu(guest.features) as vcpu:
        return {id: answer.text for id, answer in restore(vcpu, values).items()}


def _folded(fates: Mapping[tuple[int, str, str], list[tuple[str, str]]]) -> list[Blocker]:
    """Registers that share effect, reason and directions as one blocker."""
    groups: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[int]] = {}
    for (id, effect, why), directions in fates.items():
        groups.setdefault((effect, why, tuple(directions)), []).append(id)
    found = [Blocker(tuple(sorted(ids)), *group) for group, ids in groups.items()]
    return sorted(found, key=lambda one: (one.effect != REFUSED, one.registers))
