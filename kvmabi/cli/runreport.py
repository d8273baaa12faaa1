# SPDX-License-Identifier: MIT
"""The report of ``kvmabi run`` in each form, and its one-line summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection

from kvmabi.cli import formats
from kvmabi.cli.remarks import Remarks
from kvmabi.order import FAILING, NOTHING_JUDGED, Severity, Verdict


def render(
    verdict: Verdict,
    form: str,
    remarks: Remarks,
    *,
    program: str = "",
    fails: Collection[Severity] = FAILING,
    strict: bool = False,
) -> str:
    """Returns the report in a form, without a final newline.

    ``program`` is the path of the program that ran: SARIF names it where no line of a source is known.
    ``fails`` are the severities that fail a JUnit test case; ``strict``: a restore that was not judged fails one, too.
    """
    if form == formats.JSON:
        return json.dumps(verdict.as_dict() | remarks.as_dict(), indent=2)
    if form in (formats.JUNIT, formats.SARIF):
        from kvmabi.cli import runforms  # here: a start of the command costs less without it

        if form == formats.SARIF:
            return runforms.as_sarif(verdict, remarks, program, strict=strict)
        return runforms.as_junit(verdict, remarks, fails, strict=strict)
    lines = [f"kvmabi: {verdict}", *([f"kvmabi: --strict: {NOTHING_JUDGED}"] if strict and verdict.is_vacuous else [])]
    return "\n".join([*lines, *remarks.as_lines()])


def summary(verdict: Verdict, path: str) -> str:
    """Returns a line that says what was found and where the report is.

    >>> summary(Verdict(12, (), (), ()), "report.xml")
    'no findings: the report is in report.xml'
    """
    counts = Counter(finding.severity for finding in verdict.findings)
    parts = ", ".join(f"{counts[severity]} {severity}" for severity in Severity if counts[severity])
    count = len(verdict.findings)
    found = f"{count} finding{'s' if count != 1 else ''} ({parts})" if count else "no findings"
    unseen = len(verdict.unseen)
    unjudged = f", {unseen} restored vCPU{'s' if unseen != 1 else ''} not judged" if unseen else ""
    nothing = ", and nothing was judged" if verdict.is_vacuous else ""
    return f"{found}{unjudged}{nothing}: the report is in {path}"
