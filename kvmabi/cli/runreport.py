# SPDX-License-Identifier: MIT
"""The report of ``kvmabi run`` in each form, and its one-line summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence

from kvmabi.cli import formats
from kvmabi.errors import NOT_MODELLED
from kvmabi.order import FAILING, NOTHING_JUDGED, Severity, Verdict


def render(
    verdict: Verdict,
    form: str,
    warnings: Sequence[str],
    refused: Sequence[str],
    *,
    unmodelled: Sequence[str] = (),
    program: str = "",
    fails: Collection[Severity] = FAILING,
    strict: bool = False,
) -> str:
    """Returns the report in a form, without a final newline.

    ``warnings`` are lines about damage that a kernel would have done, ``refused`` the last errors of a program that
    failed, ``unmodelled`` what it asked for that kvmabi does not model. ``program`` is the path of the program that
    ran: SARIF names it where no line of a source is known.
    ``fails`` are the severities that fail a JUnit test case; ``strict``: a restore that was not judged fails one, too.
    """
    if form == formats.JSON:
        more = {"warnings": list(warnings), "refused": list(refused), "not_modelled": list(unmodelled)}
        return json.dumps(verdict.as_dict() | more, indent=2)
    if form in (formats.JUNIT, formats.SARIF):
        from kvmabi.cli import runforms  # here: a start of the command costs less without it

        if form == formats.SARIF:
            return runforms.as_sarif(verdict, warnings, refused, unmodelled, program, strict=strict)
        return runforms.as_junit(verdict, "\n".join(_sections(warnings, refused, unmodelled)), fails, strict=strict)
    lines = [f"kvmabi: {verdict}", *([f"kvmabi: --strict: {NOTHING_JUDGED}"] if strict and verdict.is_vacuous else [])]
    return "\n".join([*lines, *_sections(warnings, refused, unmodelled)])


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


def _sections(warnings: Sequence[str], refused: Sequence[str], unmodelled: Sequence[str]) -> list[str]:
    lines = []
    if unmodelled:
        lines += [f"{NOT_MODELLED}; a kernel may answer otherwise:", *(f"  {line}" for line in unmodelled)]
    if warnings:
        lines += ["kvmabi: warnings:", *(f"  {event}" for event in warnings)]
    if refused:
        lines += ["kvmabi: the program failed; what was refused last:", *(f"  {event}" for event in refused)]
    return lines
