# SPDX-License-Identifier: MIT
"""The verdict on a run: what was lost, what was judged against which save, and what was not judged and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kvmabi.order.causes import Severity
from kvmabi.order.findings import Finding, Pair

WORST_FIRST = tuple(Severity)
MOST_LINES = 8
FAILING = (Severity.LOST, Severity.CHANGED)
"""The severities that make a run or a test fail unless it is told otherwise."""
NOTHING_JUDGED = (
    "registers were saved or written, and nothing was judged: "
    "declare what was restored (--pair), or give --strict to the run that restores"
)
Place = tuple[int, int | None]
"""A VM and a vCPU, or None for all vCPUs of the VM."""


@dataclass(frozen=True)
class NotJudged:
    """A vCPU that was not judged: how many registers were written to it, why, and what would help.

    ``is_restore``: it looks like a restore, so that a strict verdict fails.
    """

    vm: int
    vcpu: int
    writes: int
    why: str
    hint: str = ""
    is_restore: bool = False

    def __str__(self) -> str:
        hint = f": {self.hint}" if self.hint else ""
        return f"VM {self.vm} vCPU {self.vcpu}: {self.why}{hint}"

    def as_dict(self) -> dict[str, Any]:
        """Returns it as data for JSON."""
        return {
            "vm": self.vm,
            "vcpu": self.vcpu,
            "writes": self.writes,
            "why": self.why,
            "hint": self.hint,
            "is_restore": self.is_restore,
        }


@dataclass(frozen=True)
class Verdict:
    """What the events of a run show; ``saves`` is how many saves they have. ``str()`` is the report as text."""

    events: int
    findings: tuple[Finding, ...]
    judged: tuple[Pair, ...]
    not_judged: tuple[NotJudged, ...]
    saves: int = 0

    @property
    def worst(self) -> Severity | None:
        """The worst severity among the findings, None without any."""
        return next((level for level in WORST_FIRST if any(of.severity is level for of in self.findings)), None)

    @property
    def unseen(self) -> tuple[NotJudged, ...]:
        """The vCPUs that look restored and were not judged: what a strict verdict does not accept."""
        return tuple(vcpu for vcpu in self.not_judged if vcpu.is_restore)

    @property
    def is_vacuous(self) -> bool:
        """Whether registers were saved or written, and nothing was judged or seen to need it: no strict verdict."""
        if self.judged or self.findings or self.unseen:
            return False
        return self.saves > 0 or any(vcpu.writes for vcpu in self.not_judged)

    def fails(self, fail_on: Collection[Severity] = FAILING, *, strict: bool = False) -> bool:
        """Whether it is a failure: it has a finding of one of these severities, or, strict, leaves a restore out.

        Strict, it is one also if registers were saved or written and nothing was judged.
        """
        found = any(finding.severity in fail_on for finding in self.findings)
        return found or (strict and (bool(self.unseen) or self.is_vacuous))

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        return self.worst or ("clean" if self.judged else "nothing judged")

    def as_dict(self) -> dict[str, Any]:
        """Returns the verdict as data for JSON."""
        return {
            "events": self.events,
            "verdict": str(self.word),
            "judged": [pair.as_dict() for pair in self.judged],
            "not_judged": [vcpu.as_dict() for vcpu in self.not_judged],
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def __str__(self) -> str:
        lines = [f"{self.events} events, {self._headline()}"]
        for number, finding in enumerate(self.findings, 1):
            lines += ["", f"{number}. {finding}"]
        if self.findings:
            lines.append("")
        return "\n".join(lines + self._summary())

    def _headline(self) -> str:
        count = len(self.findings)
        if count:
            return f"{count} finding{'s' if count != 1 else ''}"
        if self.judged:
            return "nothing was lost of what was judged"
        if not self.events:
            return "/dev/kvm was never used, so nothing was judged"
        return "no save and restore was seen, so nothing was judged"

    def _summary(self) -> list[str]:
        lines = []
        if self.judged:
            lines.append(f"judged: {_vcpus(len(self.judged))}")
            lines += _some([str(pair) for pair in self.judged])
        if self.not_judged:
            lines.append(f"not judged: {_vcpus(len(self.not_judged))}")
            lines += _some([str(vcpu) for vcpu in sorted(self.not_judged, key=lambda vcpu: not vcpu.is_restore)])
        return lines


def _vcpus(count: int) -> str:
    return f"{count} vCPU{'s' if count != 1 else ''}"


def _some(lines: list[str]) -> list[str]:
    more = [f"  and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return [f"  {line}" for line in lines[:MOST_LINES]] + more
