# SPDX-License-Identifier: MIT
"""The outcomes of a run of the suite for CI: JUnit's XML, SARIF and annotations."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from kvmabi.cli import junit, sarif
from kvmabi.cli.github import Annotation, Level
from kvmabi.conformance import Case, HostFeatures, Outcome
from kvmabi.conformance.report import describe

NAME_LINE = r"""\s*name\s*=\s*["']{}["']"""


def as_junit(host_features: HostFeatures, outcomes: Sequence[Outcome], _own: Collection[str] = ()) -> str:
    """A test case for each case."""
    name = f"kvmabi conformance {host_features.kernel} {host_features.release}"
    return junit.write(junit.Suite(name, [_junit_case(outcome) for outcome in outcomes]))


def _junit_case(outcome: Outcome) -> junit.Case:
    group, _, name = outcome.case.name.partition(".")
    name = name or group
    if not outcome.differences:
        return junit.Case(group, name, outcome.seconds, skipped=outcome.skipped)
    details = _details(outcome)
    return junit.Case(group, name, outcome.seconds, outcome.case.rule or "an answer differs", "difference", details)


def as_sarif(host_features: HostFeatures, outcomes: Sequence[Outcome], own: Collection[str] = ()) -> str:
    """A result for each case that failed, whose rule is the case's; at its line, if its file is one of the ``own``."""
    failed = [outcome for outcome in outcomes if outcome.differences]
    cases = {_base(outcome.case): outcome.case for outcome in failed}
    rules = [sarif.Rule(name, name, case.rule, f"source: {case.source}") for name, case in cases.items()]
    results = [
        sarif.Result(
            _base(outcome.case),
            sarif.Level.ERROR,
            f"{outcome.case.rule}\n{_details(outcome)}",
            (sarif.Thing("case", outcome.case.name),),
            place(outcome.case, own),
        )
        for outcome in failed
    ]
    notices = [
        sarif.Notice(sarif.Level.NOTE, str(host_features)),
        *(
            sarif.Notice(sarif.Level.NOTE, f"{outcome.case.name} was skipped: {outcome.skipped}")
            for outcome in outcomes
            if outcome.skipped
        ),
    ]
    return sarif.write(sarif.Report("kvmabi conformance", rules, results, notices))


def annotated(outcomes: Sequence[Outcome], own: Collection[str] = ()) -> Iterator[Annotation]:
    """Returns an error for each case that failed, at its line, if its file is one of the ``own``."""
    for outcome in outcomes:
        if outcome.differences:
            where = place(outcome.case, own) or sarif.Place("")
            message = f"{outcome.case.rule}\n{_details(outcome)}"
            yield Annotation(Level.ERROR, f"kvmabi conformance: {outcome.case.name}", message, where.path, where.line)


def place(case: Case, own: Collection[str]) -> sarif.Place | None:
    """Returns the line on which a case's name stands in a file of the user's own; None for a built-in case."""
    if case.file not in own:
        return None
    try:
        lines = Path(case.file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # it has gone since it was read
        lines = []
    named = re.compile(NAME_LINE.format(re.escape(_base(case))))
    found = (number for number, line in enumerate(lines, 1) if named.match(line))
    return sarif.Place(case.file, next(found, 0))


def _details(outcome: Outcome) -> str:
    return "\n".join(line for difference in outcome.differences for line in describe(difference))


def _base(case: Case) -> str:
    """Returns a case's name without the values of its parameters."""
    return case.name.partition("[")[0]
