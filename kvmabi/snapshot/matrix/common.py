# SPDX-License-Identifier: MIT
"""What the members of a fleet have in common, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kvmabi import regid
from kvmabi.snapshot.matrix import blockers
from kvmabi.snapshot.matrix.blockers import Blocker
from kvmabi.snapshot.matrix.commonids import IdRegister
from kvmabi.snapshot.matrix.commonlengths import CommonLengths
from kvmabi.snapshot.matrix.members import Member


@dataclass
class Common:
    """What the members of a fleet have in common.

    ``features`` are those of the guest for which ID registers are compared, ``sve`` and ``sme`` the vector lengths,
    ``registers`` the feature ID registers, ``bound`` the registers that describe CPU and caches and differ (name to the
    members' values), ``blockers`` what is still refused, or left at reset, between two hosts that run guests with the
    template. ``notes`` say what was not judged.
    """

    members: list[Member]
    features: frozenset[str]
    sve: CommonLengths
    sme: CommonLengths
    registers: list[IdRegister]
    bound: dict[str, dict[str, int]]
    blockers: list[Blocker]
    notes: list[str] = field(default_factory=list)

    @property
    def template(self) -> dict[int, int]:
        """The CPU template that every host accepts: values of the ID registers in which hosts differ, by ID.

        Registers without a common value are not in it: see ``no_common_value``.
        """
        return {one.id: one.value for one in self.registers if one.value is not None and one.differs and not one.absent}

    @property
    def no_common_value(self) -> list[IdRegister]:
        """The ID registers for which no value suits every host, or that some host lacks."""
        return [one for one in self.registers if one.value is None or one.absent]

    @property
    def refused_guest(self) -> bool:
        """Whether some host cannot give the vector lengths that were asked for."""
        return bool(self.sve.guest_problems or self.sme.guest_problems)

    @property
    def migratable(self) -> bool:
        """Whether a guest with the template moves between all hosts of the fleet without a refusal."""
        return not self.no_common_value and not any(one.effect == blockers.REFUSED for one in self.blockers)

    def as_dict(self) -> dict[str, Any]:
        """The matrix for JSON."""
        return {
            "hosts": [
                {
                    "name": member.name,
                    "kernel": member.kernel_name or None,
                    "snapshot": member.snapshot is not None,
                    "features": sorted(member.features),
                }
                for member in self.members
            ],
            "features": sorted(self.features),
            "sve": self.sve.as_dict(),
            "sme": self.sme.as_dict(),
            "template": {regid.name_of(id): f"{value:#x}" for id, value in self.template.items()},
            "id_registers": [one.as_dict() for one in self.registers if one.differs],
            "host_bound": {
                name: {host: f"{value:#x}" for host, value in values.items()} for name, values in self.bound.items()
            },
            "blockers": [one.as_dict() for one in self.blockers],
            "migratable": self.migratable,
            "notes": self.notes,
        }
