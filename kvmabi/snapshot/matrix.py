# SPDX-License-Identifier: MIT
"""A fleet of hosts: which guest every one of them can take, and what keeps a guest from moving between them.

>>> found = matrix(["neoverse-n2", "neoverse-v1", "a64fx"])
>>> found.sve.shared, found.sve.widest
((128,), (128,))
>>> found.refused_guest
False
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.profiles import Host, Kernel, idnames
from kvmabi.profiles import features as feature_rules
from kvmabi.snapshot import blockers, commonids, commonlengths
from kvmabi.snapshot.blockers import Blocker, Guest
from kvmabi.snapshot.commonids import IdRegister
from kvmabi.snapshot.commonlengths import CommonLengths, Lengths
from kvmabi.snapshot.members import Member, bound_ids, member_of, usual
from kvmabi.snapshot.snapshot import Snapshot

MOST_BITS = 2048
MOST_MEMBERS = 256
What = str | Path | Host | Snapshot


@dataclass
class Matrix:
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

    def text(self) -> str:
        """The matrix for readers."""
        from kvmabi.snapshot import matrixtext

        return matrixtext.text(self)

    def svg(self) -> str:
        """The vector lengths as a picture, self-contained."""
        from kvmabi.snapshot import matrixsvg

        return matrixsvg.svg(self)


def matrix(
    hosts: Iterable[What],
    *,
    guest_sve: Iterable[int] | None = None,
    guest_sme: Iterable[int] | None = None,
    kernel: str | Kernel | None = None,
    features: Iterable[str] | None = None,
) -> Matrix:
    """Compare the members of a fleet: names of built-in hosts, files of hosts or snapshots, Hosts and Snapshots.

    ``guest_sve`` and ``guest_sme`` are sets of vector lengths in bits that a guest is to have, ``kernel`` the kernel of
    every member (None: the one that each was recorded with), ``features`` those of the guest (None: all usual ones that
    every member offers, SVE and SME only where there is a set that every one accepts). Raises UsageError for no host,
    an unknown one, lengths that there are not, or features that a member does not offer.
    """
    members = _named(member_of(what, kernel) for what in _listed(hosts))
    sve = commonlengths.common("sve", {one.name: one.sve_bits for one in members}, lengths_of(guest_sve, "SVE"))
    sme = commonlengths.common("sme", {one.name: one.sme_bits for one in members}, lengths_of(guest_sme, "SME"))
    given = _features(members, features, {"sve": sve, "sme": sme})
    for member in members:
        member.settle(given)
    registers = [
        commonids.common(id, members, given)
        for id in idnames.feature_ids()
        if any(id in member.limits for member in members)
    ]
    found = Matrix(members, given, sve, sme, registers, _bound(members), [], _notes(members))
    guest = Guest(
        given,
        sve.widest if "sve" in given else (),
        sme.widest if "sme" in given else (),
        found.template,
    )
    found.blockers = blockers.find(members, guest)
    return found


def lengths_of(bits: Iterable[int] | None, extension: str) -> Lengths | None:
    """A set of vector lengths in bits, rising. Raises UsageError for one that no vCPU can have."""
    if bits is None:
        return None
    chosen = tuple(sorted(set(bits)))
    if any(not isinstance(length, int) or length % 128 or not 128 <= length <= MOST_BITS for length in chosen):
        raise UsageError(f"{extension}'s vector lengths are multiples of 128 up to {MOST_BITS} bits")
    return chosen


def _listed(hosts: Iterable[What]) -> Sequence[What]:
    if isinstance(hosts, str | Path | Host | Snapshot):
        return [hosts]
    chosen = list(hosts)
    if not chosen:
        raise UsageError("a fleet has at least one host")
    if len(chosen) > MOST_MEMBERS:
        raise UsageError(f"a fleet has at most {MOST_MEMBERS} hosts here")
    return chosen


def _named(members: Iterable[Member]) -> list[Member]:
    """The members, each with a name of its own."""
    chosen: list[Member] = []
    for member in members:
        names = {other.name for other in chosen}
        name, number = member.name, 2
        while member.name in names:
            member.name, number = f"{name} ({number})", number + 1
        chosen.append(member)
    return chosen


def _features(
    members: Sequence[Member], features: Iterable[str] | None, lengths: dict[str, CommonLengths]
) -> frozenset[str]:
    """The features of the guest."""
    shared = frozenset.intersection(*(member.features for member in members))
    if features is None:
        return usual(frozenset(name for name in shared if name not in lengths or lengths[name].widest))
    given = frozenset(feature_rules.expand(features))
    for name in sorted(given - shared):
        lacking = [member.name for member in members if name not in member.features]
        raise UsageError(f"not every host offers {name}: {', '.join(lacking)} does not")
    conflict = feature_rules.conflict(given)
    if conflict:
        raise UsageError(conflict)
    return given


def _bound(members: Sequence[Member]) -> dict[str, dict[str, int]]:
    """The registers that describe CPU and caches in which members differ."""
    found = {}
    for id in sorted(bound_ids()):
        values = {member.name: member.bound[id] for member in members if id in member.bound}
        if len(set(values.values())) > 1:
            found[regid.name_of(id)] = values
    return found


def _notes(members: Sequence[Member]) -> list[str]:
    notes = []
    for member in members:
        if member.snapshot is None:
            continue
        notes.append(
            f"{member.name} is a snapshot: its ID registers are what its guest was shown, its host may have more"
        )
        if member.kernel is None:
            notes.append(f"{member.name}: the kernel is not known, so which bits can be written is not judged")
        for name, bits in (("SVE", member.sve_bits), ("SME", member.sme_bits)):
            if bits is None:
                notes.append(f"{member.name} does not hold {name}'s set of vector lengths: it is left out of that")
    return notes
