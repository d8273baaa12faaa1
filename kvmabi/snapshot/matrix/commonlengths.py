# SPDX-License-Identifier: MIT
"""Which sets of vector lengths every member of a fleet can give a guest.

KVM lets a VMM cut a host's set off at the top and nothing else: below its largest length a guest has every length that
the host has. So the lengths that all hosts share are not always a set that one of them can give.

>>> sets = {"a": (128, 256, 512), "b": (128, 512)}
>>> found = common("sve", sets)
>>> found.shared, found.widest, [str(problem) for problem in found.shared_problems]
((128, 512), (128,), ['a has 256 bits below the largest length, which cannot be left out'])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvmabi.snapshot.lengths import Lengths


@dataclass(frozen=True)
class Problem:
    """Why a host cannot give a guest a set: it lacks the length, or (``extra``) has it and cannot leave it out."""

    host: str
    bits: int
    extra: bool

    def __str__(self) -> str:
        if self.extra:
            return f"{self.host} has {self.bits} bits below the largest length, which cannot be left out"
        return f"{self.host} lacks {self.bits} bits"

    def as_dict(self) -> dict[str, Any]:
        """The problem for JSON."""
        return {"host": self.host, "bits": self.bits, "what": "extra" if self.extra else "lacks"}


@dataclass(frozen=True)
class CommonLengths:
    """The lengths in bits of one extension ("sve" or "sme") in a fleet.

    ``sets`` are the members' (None: not known; then they are left out of all else), ``shared`` what is in all of them,
    ``accepted`` every set that each of them can give, the widest last. ``guest`` is the set that was asked for.
    """

    extension: str
    sets: Mapping[str, Lengths | None]
    shared: Lengths
    accepted: tuple[Lengths, ...]
    guest: Lengths | None = None

    @property
    def widest(self) -> Lengths:
        """The widest set that every host accepts; empty if only a guest without the extension runs on all."""
        return self.accepted[-1] if self.accepted else ()

    @property
    def unknown(self) -> tuple[str, ...]:
        """The members whose sets are not known."""
        return tuple(name for name, bits in self.sets.items() if bits is None)

    @property
    def shared_problems(self) -> list[Problem]:
        """The hosts that cannot give a guest all the shared lengths, and why."""
        return self.problems(self.shared)

    @property
    def guest_problems(self) -> list[Problem]:
        """The hosts that cannot give the guest that was asked for."""
        return [] if self.guest is None else self.problems(self.guest)

    def problems(self, guest: Lengths) -> list[Problem]:
        """The hosts that cannot give a guest a set, and which length is the reason."""
        return [
            problem for name, bits in self.sets.items() if bits is not None for problem in broken(name, bits, guest)
        ]

    def as_dict(self) -> dict[str, Any]:
        """The lengths for JSON."""
        return {
            "hosts": {name: None if bits is None else list(bits) for name, bits in self.sets.items()},
            "shared": list(self.shared),
            "shared_problems": [problem.as_dict() for problem in self.shared_problems],
            "accepted": [list(bits) for bits in self.accepted],
            "widest": list(self.widest),
            "guest": None if self.guest is None else list(self.guest),
            "guest_problems": [problem.as_dict() for problem in self.guest_problems],
        }


def broken(name: str, host: Lengths, guest: Lengths) -> list[Problem]:
    """Why a host with a set cannot give a guest another one, the lowest length first; empty if it can."""
    top = max(guest, default=0)
    lacks = [Problem(name, bits, False) for bits in guest if bits not in host]
    extra = [Problem(name, bits, True) for bits in host if bits < top and bits not in guest]
    return sorted([*lacks, *extra], key=lambda problem: problem.bits)


def common(extension: str, sets: Mapping[str, Lengths | None], guest: Lengths | None = None) -> CommonLengths:
    """Compare the sets of a fleet."""
    known = [frozenset(bits) for bits in sets.values() if bits is not None]
    shared = tuple(sorted(frozenset.intersection(*known))) if known else ()
    accepted = []
    for top in shared:
        below = {tuple(sorted(bits for bits in host if bits <= top)) for host in known}
        if len(below) == 1:
            accepted.append(below.pop())
    return CommonLengths(extension, sets, shared, tuple(accepted), guest)
