# SPDX-License-Identifier: MIT
"""Findings and the report of validate, as text for people and as data for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kvmabi import regid
from kvmabi.snapshot.checks import rules
from kvmabi.snapshot.checks.rules import Rule, Severity
from kvmabi.snapshot.wording import count, runs, wrapped

WIDTH = 100
MOST_NAMED = 1024
"""More registers than any kernel lists are not named one by one."""
NO_PLACES: Mapping[int, int] = {}


class Seen(NamedTuple):
    """What a check sees of a vCPU: the rule's ID, what was seen with values, the registers, and data for programs."""

    rule: str
    text: str
    registers: tuple[int, ...] = ()
    details: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Finding:
    """One finding. ``registers`` are IDs, ``vcpus`` the indices of the vCPUs for which it holds (none: the whole file).

    ``offset`` is the place of the first vCPU's first register, or of the damage, in the (unpacked) file in bytes, None
    where there is none. ``details`` are what was seen, as data: the fields of an ID register, for example.
    """

    rule: Rule
    text: str
    vcpus: tuple[int, ...] = ()
    registers: tuple[int, ...] = ()
    offset: int | None = None
    details: tuple[Mapping[str, Any], ...] = ()

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.rule.severity

    @property
    def vcpu(self) -> int | None:
        """The first vCPU for which it holds; None for the whole file."""
        return self.vcpus[0] if self.vcpus else None

    @property
    def names(self) -> str:
        """The registers' names with runs folded, as "za.h[32-63] zt0"; of very many, the first ones."""
        names = regid.ranges(regid.name_of(id) for id in self.registers[:MOST_NAMED])
        more = len(self.registers) - MOST_NAMED
        return f"{names} and {more} more" if more > 0 else names

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as data for JSON."""
        return {
            "rule": self.rule.id,
            "severity": str(self.severity),
            "title": self.rule.title,
            "vcpu": self.vcpu,
            "vcpus": list(self.vcpus),
            "register": self.names,
            "registers": [{"name": regid.name_of(id), "id": f"{id:#018x}"} for id in self.registers[:MOST_NAMED]],
            "register_count": len(self.registers),
            "offset": self.offset,
            "text": self.text,
            "why": self.rule.why,
            "fix": self.rule.fix,
            "details": [dict(detail) for detail in self.details],
        }

    def __str__(self) -> str:
        where = f" (vCPU{'s' if len(self.vcpus) > 1 else ''} {runs(self.vcpus)})" if self.vcpus else ""
        place = "" if self.offset is None else f" [at byte {self.offset:#x}]"
        parts = [(f"{self.severity}: ", f"{self.rule.title}{where}{place} <{self.rule.id}>")]
        parts += [("  ", part) for part in (self.names, self.text) if part]
        parts += [(f"  {label}: ", part) for label, part in (("why", self.rule.why), ("fix", self.rule.fix)) if part]
        return "\n".join(line for label, part in parts for line in _wrapped(label, part))


@dataclass
class Report:
    """What validate finds: the findings, the worst first; without any the snapshot is clean.

    ``subject`` says what was judged against what.
    """

    subject: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each severity."""
        counts = {str(severity): 0 for severity in Severity}
        for finding in self.findings:
            counts[finding.severity] += 1
        return counts

    @property
    def errors(self) -> list[Finding]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding.severity is Severity.ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that are warnings."""
        return [finding for finding in self.findings if finding.severity is Severity.WARNING]

    @property
    def not_judged(self) -> list[Finding]:
        """The notes on rules that lack a fact."""
        return [finding for finding in self.findings if finding.rule.id == "not-judged"]

    @property
    def is_clean(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(finding.severity is Severity.NOTE for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as data for JSON."""
        findings = [finding.as_dict() for finding in self.findings]
        return {"subject": self.subject, "counts": self.counts, "findings": findings}

    def __str__(self) -> str:
        counts = ", ".join(count(number, name) for name, number in self.counts.items() if number) or "clean"
        return "\n".join([f"{self.subject}: {counts}", *map(str, self.findings)])


def bound(seen: Seen, vcpus: tuple[int, ...] = (), places: Mapping[int, int] = NO_PLACES) -> Finding:
    """What was seen as a finding on some vCPUs; ``places`` are those of the first one's registers."""
    offset = next((places[id] for id in seen.registers if id in places), None)
    return Finding(rules.rule(seen.rule), seen.text, vcpus, seen.registers, offset, seen.details)


def _wrapped(label: str, text: str) -> Iterator[str]:
    hanging = " " * len(label)
    for line in text.splitlines():
        yield from wrapped(line, label, hanging, WIDTH)
        label = hanging
