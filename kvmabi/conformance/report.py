# SPDX-License-Identifier: MIT
"""The outcomes of a run of the suite as text or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence

from kvmabi.conformance.runner import Difference, Outcome
from kvmabi.steps.hostfeatures import HostFeatures

STATUSES = ("passed", "failed", "skipped")


def text(host_features: HostFeatures, outcomes: Sequence[Outcome]) -> str:
    """For readers: every difference with its rule, the skipped ones by reason, and a line of counts."""
    lines = [str(host_features), ""]
    for outcome in outcomes:
        if outcome.status == "failed":
            lines += [
                f"FAILED {outcome.case.name}",
                f"  rule:     {outcome.case.rule}",
                f"  source:   {outcome.case.source}",
            ]
            for difference in outcome.differences:
                lines += describe(difference)
            lines.append("")
    reasons = Counter(outcome.skipped for outcome in outcomes if outcome.skipped)
    lines += [f"skipped {count:3}: {reason}" for reason, count in sorted(reasons.items())]
    return "\n".join([*lines, summary(outcomes)])


def describe(difference: Difference) -> list[str]:
    """Returns a difference in lines: the case's line, its step if that says more, and both answers."""
    lines = [f"  {difference.line}"]
    if difference.step != difference.line:
        lines.append(f"    step:     {_short(difference.step)}")
    return [*lines, f"    expected: {_short(difference.expected)}", f"    got:      {_short(difference.got)}"]


def _short(answer: str) -> str:
    return answer if len(answer) <= 160 else f"{answer[:150]}... ({len(answer)} characters)"


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line: how many cases passed, failed and were skipped, and the number of steps."""
    counts = Counter(outcome.status for outcome in outcomes)
    counted = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    return f"{counted} ({sum(outcome.steps for outcome in outcomes)} steps)"


def as_json(host_features: HostFeatures, outcomes: Sequence[Outcome]) -> str:
    """For programs: what the host offers, the counts, and every case."""
    counts = Counter(outcome.status for outcome in outcomes)
    return json.dumps(
        {
            "kernel": host_features.kernel,
            "release": host_features.release,
            "features": sorted(host_features.features | host_features.traits),
            "sve_vector_bits": [vq * 128 for vq in host_features.sve_vqs],
            "sme_vector_bits": [vq * 128 for vq in host_features.sme_vqs],
            "counts": {status: counts[status] for status in STATUSES},
            "cases": [_case(outcome) for outcome in outcomes],
        },
        indent=1,
    )


def _case(outcome: Outcome) -> dict[str, object]:
    row: dict[str, object] = {
        "name": outcome.case.name,
        "status": outcome.status,
        "rule": outcome.case.rule,
        "source": outcome.case.source,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 6),
    }
    if outcome.skipped:
        row["skipped"] = outcome.skipped
    if outcome.differences:
        row["differences"] = [vars(difference) for difference in outcome.differences]
    return row


FORMATS: dict[str, Callable[[HostFeatures, Sequence[Outcome]], str]] = {"text": text, "json": as_json}
