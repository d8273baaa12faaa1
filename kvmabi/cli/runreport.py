# SPDX-License-Identifier: MIT
"""The report of ``kvmabi run`` in each form, its one-line summary, and its annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from kvmabi.cli import formats, github, junit, sarif, sources
from kvmabi.errors import NOT_MODELLED
from kvmabi.order import FAILING, NOTHING_JUDGED, Finding, NotJudged, Pair, Severity, Verdict

COMMAND = "kvmabi run"
"""The severities of findings that fail a JUnit test case."""
LEVELS = {
    Severity.LOST: (sarif.Level.ERROR, github.Level.ERROR),
    Severity.CHANGED: (sarif.Level.WARNING, github.Level.WARNING),
    Severity.LATENT: (sarif.Level.NOTE, github.Level.NOTICE),
}
NAMES_SHOWN = 12


def render(
    verdict: Verdict,
    form: str,
    warnings: Sequence[str],
    refused: Sequence[str],
    *,
    unmodelled: Sequence[str] = (),
    notes: Sequence[str] = (),
    program: str = "",
    fails: Collection[Severity] = FAILING,
    strict: bool = False,
) -> str:
    """Returns the report in a form, without a final newline.

    ``warnings`` are lines about damage that a kernel would have done, ``refused`` the last errors of a program that
    failed, ``unmodelled`` what it asked for that kvmabi does not model, ``notes`` what else bears on the whole run,
    such as a kernel that does not exist. ``program`` is the path of the program that ran: SARIF names it where no line
    of a source is known.
    ``fails`` are the severities that fail a JUnit test case; ``strict``: a restore that was not judged fails one, too.
    """
    if form == formats.JSON:
        more = {
            "warnings": list(warnings),
            "refused": list(refused),
            "not_modelled": list(unmodelled),
            "notes": list(notes),
        }
        return json.dumps(verdict.as_dict() | more, indent=2)
    if form == formats.JUNIT:
        output = "\n".join(_sections(warnings, refused, unmodelled, notes))
        return junit.write(junit.Suite(COMMAND, list(_cases(verdict, fails, strict)), output))
    if form == formats.SARIF:
        return sarif.write(
            _sarif(verdict, [*warnings, *map(_not_modelled, unmodelled)], [*refused, *notes], program, strict=strict)
        )
    lines = [f"kvmabi: {verdict}", *([f"kvmabi: --strict: {NOTHING_JUDGED}"] if strict and verdict.is_vacuous else [])]
    return "\n".join([*lines, *_sections(warnings, refused, unmodelled, notes)])


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


def annotated(verdict: Verdict, *, strict: bool = False) -> Iterator[github.Annotation]:
    """Returns an annotation for each finding, at a line of a source if one is known.

    ``strict``: also for each restore that was not judged, and where nothing was.
    """
    for finding in verdict.findings:
        place = sources.innermost(sources.stacks(finding)) or sarif.Place("")
        level = LEVELS[finding.severity][1]
        yield github.Annotation(level, f"kvmabi: {finding.title}", _message(finding), place.path, place.line)
    for one in verdict.unseen if strict else ():
        yield github.Annotation(github.Level.ERROR, "kvmabi: a restore was not judged", _unjudged(one))
    if strict and verdict.is_vacuous:
        yield github.Annotation(github.Level.ERROR, "kvmabi: nothing was judged", NOTHING_JUDGED)


def _not_modelled(line: str) -> str:
    return f"{NOT_MODELLED}: {line}"


def _sections(
    warnings: Sequence[str], refused: Sequence[str], unmodelled: Sequence[str], notes: Sequence[str]
) -> list[str]:
    lines = []
    if unmodelled:
        lines += [f"{NOT_MODELLED}; a kernel may answer otherwise:", *(f"  {line}" for line in unmodelled)]
    if warnings:
        lines += ["kvmabi: warnings:", *(f"  {event}" for event in warnings)]
    if refused:
        lines += ["kvmabi: the program failed; what was refused last:", *(f"  {event}" for event in refused)]
    return [*lines, *(f"kvmabi: note: {note}" for note in notes)]


def _vcpu(one: Finding | NotJudged | Pair) -> str:
    return f"VM {one.vm} vCPU {one.vcpu}"


def _why(one: NotJudged) -> str:
    return f"{one.why}{f': {one.hint}' if one.hint else ''}"


def _unjudged(one: NotJudged) -> str:
    return f"{_vcpu(one)} was not judged: {_why(one)}"


def _message(finding: Finding) -> str:
    """Returns a finding in a few sentences: the registers, the first one's reason, and the fix."""
    names = " ".join(finding.registers[:NAMES_SHOWN])
    more = len(finding.losses) - NAMES_SHOWN
    text = f"{finding.title}: {_vcpu(finding)}"
    if finding.losses:
        text += f": {names}{f' and {more} more' if more > 0 else ''}. {finding.losses[0].why}"
    text = ". ".join([text, *(finding.notes if not finding.losses else ())]) + "."
    return f"{text} Fix: {finding.fix}."


# --- JUnit: a case for each pair that was judged, for each finding without a pair, and for what was not judged


def _cases(verdict: Verdict, fails: Collection[Severity], strict: bool) -> Iterator[junit.Case]:
    pairs = dict.fromkeys([*verdict.judged, *(found.pair for found in verdict.findings if found.pair is not None)])
    for pair in pairs:
        yield _case(_pair(pair), [found for found in verdict.findings if found.pair == pair], fails)
    for finding in verdict.findings:
        if finding.pair is None:
            yield _case(f"{_vcpu(finding)}: {finding.kind}", [finding], fails)
    for one in verdict.not_judged:
        why = f"not judged: {_why(one)}"
        if strict and one.is_restore:
            yield junit.Case(COMMAND, _vcpu(one), failure=why, kind="not-judged")
        else:
            yield junit.Case(COMMAND, _vcpu(one), skipped=why)
    if strict and verdict.is_vacuous:
        yield junit.Case(COMMAND, "the program", failure=NOTHING_JUDGED, kind="not-judged")
    elif not verdict.judged and not verdict.findings and not verdict.not_judged:
        why = "no save and restore was seen" if verdict.events else "/dev/kvm was never used"
        yield junit.Case(COMMAND, "the program", skipped=f"nothing was judged: {why}")


def _pair(pair: Pair) -> str:
    source = f"VM {pair.source_vm} vCPU {pair.source_vcpu}"
    return f"{_vcpu(pair)} restored from {source}{f' of {pair.from_run}' if pair.from_run else ''}"


def _case(name: str, findings: Sequence[Finding], fails: Collection[Severity]) -> junit.Case:
    """Returns a case that fails if one of the findings does; the others' texts are with it."""
    failing = [found for found in findings if found.severity in fails]
    details = "\n\n".join(map(str, findings))
    if not failing:
        return junit.Case(COMMAND, name, output=details)
    return junit.Case(COMMAND, name, 0.0, "; ".join(found.title for found in failing), failing[0].kind, details)


# --- SARIF: a rule for each kind and cause, a result for each finding


def _sarif(
    verdict: Verdict, warnings: Sequence[str], notes: Sequence[str], program: str, *, strict: bool
) -> sarif.Report:
    rules = {_rule(found): sarif.Rule(_rule(found), found.title, found.rule, found.fix) for found in verdict.findings}
    notices = [
        *(sarif.Notice(sarif.Level.WARNING, text) for text in warnings),
        *(sarif.Notice(sarif.Level.NOTE, text) for text in notes),
        *(
            sarif.Notice(sarif.Level.ERROR if strict and one.is_restore else sarif.Level.NOTE, _unjudged(one))
            for one in verdict.not_judged
        ),
        *([sarif.Notice(sarif.Level.ERROR, NOTHING_JUDGED)] if strict and verdict.is_vacuous else []),
    ]
    return sarif.Report(COMMAND, list(rules.values()), [_result(found, program) for found in verdict.findings], notices)


def _rule(finding: Finding) -> str:
    """Returns the id of the rule that was broken: SARIF's ids have levels, and the causes of a kind have own texts."""
    return finding.kind if finding.cause == finding.kind else f"{finding.kind}/{finding.cause}"


def _result(finding: Finding, program: str) -> sarif.Result:
    vcpu = f"VM {finding.vm}/vCPU {finding.vcpu}"
    things = (sarif.Thing("vcpu", vcpu), *(sarif.Thing("register", f"{vcpu}/{name}") for name in finding.registers))
    stacks = sources.stacks(finding)
    place = sources.innermost(stacks) or (sarif.Place(program) if program else None)
    return sarif.Result(_rule(finding), LEVELS[finding.severity][0], _message(finding), things, place, stacks)
