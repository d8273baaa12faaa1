# SPDX-License-Identifier: MIT
"""The report of ``kvmabi blob validate`` in each form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from kvmabi.cli import common, formats, junit, sarif
from kvmabi.snapshot import page
from kvmabi.snapshot.checks import rules
from kvmabi.snapshot.checks.findings import Finding, Report
from kvmabi.snapshot.checks.rules import Severity
from kvmabi.snapshot.page import Page
from kvmabi.snapshot.picture import Mark
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.wording import count, wrapped

COMMAND = "kvmabi blob validate"
LEVELS = {
    Severity.ERROR: sarif.Level.ERROR,
    Severity.WARNING: sarif.Level.WARNING,
    Severity.NOTE: sarif.Level.NOTE,
}
WIDTH = 100
MARKS = {Severity.ERROR: Mark.ERROR, Severity.WARNING: Mark.WARNING}
Judged = tuple[str, Snapshot, Report]
"""A file, what it holds and what was found."""


def render(judged: Sequence[Judged], form: str, failing: frozenset[str]) -> str:
    """Returns the report in a form, without a final newline. ``failing`` are the severities that fail."""
    if form == formats.JSON:
        return json.dumps(_as_dict(judged, failing), indent=2)
    if form == formats.JUNIT:
        return junit.write(junit.Suite(COMMAND, [_case(path, report, failing) for path, _, report in judged]))
    if form == formats.SARIF:
        return sarif.write(_sarif(judged))
    if form == formats.HTML:
        return page.write(_page(*one) for one in judged)
    return common.printable("\n\n".join(_text(path, report) for path, _, report in judged))


def fails(report: Report, failing: frozenset[str]) -> bool:
    """Whether a report has a finding that fails."""
    return any(finding.severity in failing for finding in report.findings)


def _text(path: str, report: Report) -> str:
    return "\n".join(
        [f"{path} ({report.subject}): {_counted(report)}", *map(str, _judged(report)), *_not_judged(report)]
    )


def _judged(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding not in report.not_judged]


def _not_judged(report: Report) -> Iterator[str]:
    """What could not be judged, in few lines: they are the same for every file of a format."""
    if report.not_judged:
        yield "not known, so that some rules are not judged, or only in part:"
    for detail in (detail for finding in report.not_judged for detail in finding.details):
        give = f" (give {detail['give']})" if detail["give"] else ""
        line = f"{rules.missing()[detail['fact']].title}{give}: {', '.join(detail['rules'])}"
        yield from wrapped(line, "  ", width=WIDTH)


def _counted(report: Report) -> str:
    counts = Counter(finding.severity for finding in report.findings)
    parts = [count(number, severity) for severity in Severity if (number := counts[severity])]
    return ", ".join(parts) or "clean"


def _as_dict(judged: Sequence[Judged], failing: frozenset[str]) -> dict[str, Any]:
    files = [
        {
            "file": path,
            "format": snapshot.format,
            "vcpus": len(snapshot.vcpus),
            "judged": report.subject,
            "fails": fails(report, failing),
            "counts": report.counts,
        }
        for path, snapshot, report in judged
    ]
    findings = [{"file": path, **finding.as_dict()} for path, _, report in judged for finding in report.findings]
    return {"files": files, "findings": findings}


def _case(path: str, report: Report, failing: frozenset[str]) -> junit.Case:
    details = "\n\n".join([report.subject, *map(str, report.findings)])
    bad = [finding for finding in report.findings if finding.severity in failing]
    if not bad:
        return junit.Case(COMMAND, path, output=details)
    titles = "; ".join(dict.fromkeys(finding.rule.title for finding in bad))
    return junit.Case(COMMAND, path, failure=titles, kind=bad[0].rule.id, details=details)


def _sarif(judged: Sequence[Judged]) -> sarif.Report:
    found = [(path, finding) for path, _, report in judged for finding in report.findings]
    broken = {finding.rule.id: finding.rule for _, finding in found}
    texts = [sarif.Rule(rule.id, rule.title, rule.why, rule.fix) for rule in broken.values()]
    return sarif.Report(COMMAND, texts, [_result(path, finding) for path, finding in found])


def _result(path: str, finding: Finding) -> sarif.Result:
    vcpu = "file" if finding.vcpu is None else f"vCPU {finding.vcpu}"
    things = [] if finding.vcpu is None else [sarif.Thing("vcpu", vcpu)]
    things += [sarif.Thing("register", f"{vcpu}/{register['name']}") for register in finding.as_dict()["registers"]]
    offset = "" if finding.offset is None else f" (at byte {finding.offset:#x})"
    names = f"{finding.names}: " if finding.registers else ""
    message = f"{finding.rule.title}: {vcpu}: {names}{finding.text}{offset}"
    return sarif.Result(finding.rule.id, LEVELS[finding.severity], message, tuple(things), sarif.Place(path))


def _page(path: str, snapshot: Snapshot, report: Report) -> Page:
    marks: dict[int, dict[int, Mark]] = {}
    for finding in reversed(report.findings):  # the worst come first, and win
        if finding.vcpu is not None and finding.severity in MARKS:
            marks.setdefault(finding.vcpu, {}).update(dict.fromkeys(finding.registers, MARKS[finding.severity]))
    return Page(
        path,
        [("format", snapshot.format), ("judged", report.subject), ("found", _counted(report))],
        ("severity", "vCPU", "registers", "what"),
        list(_rows(report)),
        snapshot.vcpus,
        marks,
    )


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    for finding in report.findings:
        vcpu = "" if finding.vcpu is None else str(finding.vcpu)
        lines = [finding.rule.title, finding.text, f"why: {finding.rule.why}", f"fix: {finding.rule.fix}"]
        yield str(finding.severity), vcpu, finding.names, "\n".join(filter(None, lines))
