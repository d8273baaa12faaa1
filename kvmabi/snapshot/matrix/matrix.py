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
from pathlib import Path

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.profiles import Host, Kernel, idnames
from kvmabi.profiles import features as feature_rules
from kvmabi.snapshot.lengths import Lengths, checked
from kvmabi.snapshot.matrix import blockers, commonids, commonlengths, svg, text
from kvmabi.snapshot.matrix.blockers import Guest
from kvmabi.snapshot.matrix.common import Common
from kvmabi.snapshot.matrix.commonlengths import CommonLengths
from kvmabi.snapshot.matrix.members import Member, bound_ids, member_of
from kvmabi.snapshot.presence import usual
from kvmabi.snapshot.snapshot import Snapshot

MOST_MEMBERS = 256
What = str | Path | Host | Snapshot


class Matrix(Common):
    """What a fleet has in common, with its reports; Common describes the fields."""

    def text(self) -> str:
        """The matrix for readers."""
        return text.text(self)

    def svg(self) -> str:
        """The vector lengths as a picture, self-contained."""
        return svg.svg(self)


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
    every member offers, SVE and SME only where there is a set that every one accepts). Raises UsageError without a
    host, for an unknown one, for lengths that no vCPU has, and for features that a member does not offer.
    """
    members = _named(member_of(what, kernel) for what in _listed(hosts))
    sve = commonlengths.common("sve", {one.name: one.sve_bits for one in members}, _asked(guest_sve, "guest_sve"))
    sme = commonlengths.common("sme", {one.name: one.sme_bits for one in members}, _asked(guest_sme, "guest_sme"))
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


def _asked(bits: Iterable[int] | None, what: str) -> Lengths | None:
    return None if bits is None else checked(bits, what)


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
