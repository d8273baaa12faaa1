# SPDX-License-Identifier: MIT
"""What the format cannot hold of this vCPU, and which facts the rules lack."""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi.snapshot.checks import rules
from kvmabi.snapshot.checks.case import HOLDS_ALL, SME, SVE, Case
from kvmabi.snapshot.checks.findings import Seen
from kvmabi.snapshot.snapshot import Fact


def check(case: Case) -> Iterator[Seen]:
    """State that has no place in the format; streams of TCG."""
    if case.tcg:
        yield Seen("tcg-stream", f"{len(case.registers)} registers")
    if case.has_sve and case.lacks(Fact.SVE):
        yield Seen("vectors-lost", _lost(case, Fact.SVE))
    if case.has_sme and case.lacks(Fact.SME):
        yield Seen("vectors-lost", _lost(case, Fact.SME))
    if case.lacks(Fact.FIRMWARE_BITMAPS) and not case.tcg:
        yield Seen("bitmaps-lost", _lost(case, Fact.FIRMWARE_BITMAPS))


def _lost(case: Case, fact: Fact) -> str:
    format = case.snapshot.format
    return f"the file does not hold {fact.value}" if format in HOLDS_ALL else f"{format} has no place for {fact.value}"


def not_judged(case: Case) -> Iterator[Seen]:
    """A note for each fact that a rule needs and that is not known."""
    for id in lacking(case):
        fact = rules.missing()[id]
        needing = ", ".join(rule.id for rule in rules.rules().values() if id in rule.needs)
        give = f"; give {fact.give}" if fact.give else ""
        detail = {"fact": id, "give": fact.give, "rules": needing.split(", ")}
        yield Seen(
            "not-judged", f"not known: {fact.title}{give}\nnot judged, or only in part: {needing}", (), (detail,)
        )


def lacking(case: Case) -> Iterator[str]:
    """The facts of rules.toml that are not known and that matter to this vCPU."""
    if any(has and not case.lengths(kind) for kind, has in ((SVE, case.has_sve), (SME, case.has_sme))):
        yield "lengths"
    if case.tcg:
        return
    if case.given_features is None:
        yield "features"
    if case.target.system is None:
        yield "target"
    if case.lacks(Fact.ORDER):
        yield "order"
