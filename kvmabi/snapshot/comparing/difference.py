# SPDX-License-Identifier: MIT
"""What a comparison finds: differences, grouped and sorted, as text and as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import groupby
from typing import Any

from kvmabi import regid, uapi
from kvmabi.snapshot.comparing import qemunumbers
from kvmabi.snapshot.comparing.meaning import Part
from kvmabi.snapshot.wording import runs, wrapped

MOST_NAMED = 12
"""How many registers of a group have their IDs in the text."""


class Kind(Enum):
    """How two sides differ; in the order of reports."""

    ONLY_A = "only in A"
    ONLY_B = "only in B"
    WIDTH = "other width"
    FACT = "other fact"
    VALUE = "other value"


class Effect(Enum):
    """What a difference does to a migration from A to B; in the order in which values are reported."""

    REFUSED = "refused"
    CUT = "cut"
    TOLERATED = "tolerated"
    RESET = "left at reset"
    ACCEPTED = "accepted"
    NONE = "none"


@dataclass(frozen=True)
class Difference:
    """A difference of one kind in one or more registers, or (``registers`` is empty) in the fact ``fact``.

    ``vcpus`` are the indexes of the vCPUs that have it. ``a`` and ``b`` are the two values as text, "" for one that is
    absent, not known or longer than 8 bytes; ``parts`` where they differ. ``why`` is why it differs in practice,
    ``since`` the first Linux that lists the register where that is known, ``kernels`` the built-in kernels that list
    it, ``tolerated`` the VMMs that tolerate the difference. ``effect`` and ``consequence`` are what it means for a
    migration from A to B.
    """

    kind: Kind
    registers: tuple[int, ...] = ()
    vcpus: tuple[int, ...] = ()
    fact: str = ""
    a: str = ""
    b: str = ""
    parts: tuple[Part, ...] = ()
    why: str = ""
    since: str = ""
    kernels: tuple[str, ...] | None = None
    tolerated: tuple[str, ...] = ()
    effect: Effect = Effect.NONE
    consequence: str = ""

    @property
    def name(self) -> str:
        """The registers as a reader finds them, runs folded, or the fact."""
        return regid.ranges(map(qemunumbers.title, self.registers)) or self.fact

    def as_dict(self) -> dict[str, Any]:
        """The difference for JSON."""
        return {
            "kind": self.kind.value,
            "name": self.name,
            "registers": [{"id": f"{id:#018x}", "name": qemunumbers.title(id)} for id in self.registers],
            "vcpus": list(self.vcpus),
            "a": self.a or None,
            "b": self.b or None,
            "parts": [part.as_dict() for part in self.parts],
            "why": self.why or None,
            "since": self.since or None,
            "kernels": None if self.kernels is None else list(self.kernels),
            "tolerated_by": list(self.tolerated),
            "effect": self.effect.value,
            "consequence": self.consequence or None,
        }

    def lines(self) -> Iterator[str]:
        """The difference for readers: a line that names it, and what is known of it, indented."""
        ids = " ".join(f"{id:#018x}" for id in self.registers[:MOST_NAMED])
        count = f" ({len(self.registers)} registers)" if len(self.registers) > MOST_NAMED else f"  {ids}" if ids else ""
        values = (
            f": {self.a or '?'} -> {self.b or '?'}" if self.kind in (Kind.VALUE, Kind.FACT) and self.a + self.b else ""
        )
        alone = f" = {self.a or self.b}" if self.kind in (Kind.ONLY_A, Kind.ONLY_B) and self.a + self.b else ""
        yield from wrapped(f"{self.name}{count}{values}{alone}", "  ")
        for part in self.parts:
            yield from wrapped(str(part), "      ")
        if self.why:
            yield from wrapped(f"why: {self.why}", "      ")
        if self.kernels is not None:
            since = f"since Linux {self.since}; " if self.since else ""
            yield from wrapped(f"listed {since}by {', '.join(self.kernels) or 'no built-in kernel'}", "      ")
        if self.consequence:
            yield from wrapped(f"A -> B: {self.effect.value}: {self.consequence}", "      ")


@dataclass
class Diff:
    """The result of a comparison: ``a`` and ``b`` describe the sides (``b`` "": none was given), ``notes`` what could
    not be compared and what a log's messages mean."""

    a: str
    b: str
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def of(self, kind: Kind) -> list[Difference]:
        """The differences of one kind."""
        return [difference for difference in self.differences if difference.kind is kind]

    @property
    def refused(self) -> list[Difference]:
        """The differences for which a migration from A to B fails."""
        return [difference for difference in self.differences if difference.effect is Effect.REFUSED]

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {
            "a": self.a,
            "b": self.b or None,
            "equal": self.equal,
            "differences": [difference.as_dict() for difference in self.differences],
            "notes": self.notes,
        }

    def text(self) -> str:
        """The result for readers."""
        lines = [f"A  {self.a}", *([f"B  {self.b}"] if self.b else [])]
        for (kind, vcpus), group in groupby(self.differences, lambda one: (one.kind, one.vcpus)):
            differences = list(group)
            count = sum(max(1, len(one.registers)) for one in differences)
            where = f", vCPU {runs(vcpus)}" if vcpus else ""
            lines += ["", f"{kind.value}{where}: {count}"]
            for difference in differences:
                lines += difference.lines()
        if self.notes:
            lines.append("")
        for note in self.notes:
            lines += wrapped(f"note: {note}")
        if self.b:
            lines += ["", self.summary()]
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """The last line of the report."""
        if self.equal:
            return "A and B are equal in all that was compared"
        if self.refused:
            count = sum(max(1, len(one.registers)) for one in self.refused)
            return f"A -> B fails: {_things(count)} refused"
        lost = sum(max(1, len(one.registers)) for one in self.differences if one.effect is Effect.CUT)
        if lost:
            return f"A -> B loses state without an error: {_things(lost)} cut"
        tolerant = {vmm for one in self.differences if one.effect is Effect.TOLERATED for vmm in one.tolerated}
        if tolerant:
            return f"A -> B passes only with a VMM that tolerates what B lacks: {', '.join(sorted(tolerant))}"
        return "A -> B passes: nothing is refused"


def grouped(differences: Iterable[Difference]) -> list[Difference]:
    """Differences with those of several vCPUs, and of registers of the same fate, folded into one; sorted."""
    vcpus: dict[Difference, list[int]] = {}
    for one in differences:
        vcpus.setdefault(replace(one, vcpus=()), []).extend(one.vcpus)
    groups: dict[Any, list[Difference]] = {}
    for one, indexes in vcpus.items():
        here = replace(one, vcpus=tuple(sorted(set(indexes))))
        groups.setdefault(_group(here), []).append(here)
    kinds, effects = list(Kind), list(Effect)
    return sorted(
        map(_folded, groups.values()),
        key=lambda one: (
            kinds.index(one.kind),
            one.vcpus,
            effects.index(one.effect) if one.kind is Kind.VALUE else 0,
            [sizeless(id) for id in one.registers],
        ),
    )


def _group(one: Difference) -> Any:
    """What differences have in common that are shown as one."""
    fate = (
        one.kind,
        one.vcpus,
        one.fact,
        one.parts,
        one.why,
        one.since,
        one.kernels,
        one.tolerated,
        one.effect,
        one.consequence,
    )
    if one.kind in (Kind.ONLY_A, Kind.ONLY_B):
        return fate
    banks = tuple(regid.name_of(id).rstrip("0123456789]") for id in one.registers)
    return (
        (*fate, banks, one.a, one.b) if one.parts or len(one.registers) != 1 else (*fate, one.registers, one.a, one.b)
    )


def _folded(group: list[Difference]) -> Difference:
    if len(group) == 1:
        return group[0]
    registers = tuple(sorted((id for one in group for id in one.registers), key=sizeless))
    return replace(group[0], registers=registers, a="", b="")


def _things(count: int) -> str:
    return "one difference is" if count == 1 else f"{count} differences are"


def sizeless(id: int) -> int:
    """An ID without its size: registers of another width are one register, and stand together in a report."""
    return id & ~uapi.KVM_REG_SIZE_MASK
