# SPDX-License-Identifier: MIT
"""The report of ``kvmabi run`` for CI systems: JUnit, SARIF and GitHub's annotations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from kvmabi.cli import github, junit, sarif, sources
from kvmabi.cli.remarks import Remarks
from kvmabi.errors import ASKED_FOR, GUEST_FAILED, NOT_MODELLED
from kvmabi.order import NOTHING_JUDGED, Finding, NotJudged, Pair, Severity, Verdict

COMMAND = "kvmabi run"
LEVELS = {
    Severity.LOST: (sarif.Level.ERROR, github.Level.ERROR),
    Severity.CHANGED: (sarif.Level.WARNING, github.Level.WARNING),
    Severity.LATENT: (sarif.Level.NOTE, github.Level.NOTICE),
}
NAMES_SHOWN = 12


def as_junit(verdict: Verdict, remarks: Remarks, fails: Collection[Severity], *, strict: bool) -> str:
    """Returns the report as JUnit's XML."""
    failed = [junit.Case(COMMAND, "the guest", failure=line, kind="guest-failed") for line in remarks.failures]
    return junit.write(junit.Suite(COMMAND, [*failed, *_cases(verdict, fails, strict)], "\n".join(remarks.as_lines())))


def as_sarif(verdict: Verdict, remarks: Remarks, program: str, *, strict: bool) -> str:
    """Returns the report as SARIF; ``program`` is named where no line of a source is known."""
    return sarif.write(_sarif(verdict, remarks, program, strict=strict))


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


def _vcpu(one: Finding | NotJudged | Pair) -> str:
    return one.place if isinstance(one, Finding) else f"VM {one.vm} vCPU {one.vcpu}"


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


def _sarif(verdict: Verdict, remarks: Remarks, program: str, *, strict: bool) -> sarif.Report:
    rules = {_rule(found): sarif.Rule(_rule(found), found.title, found.rule, found.fix) for found in verdict.findings}
    unmodelled = [f"{NOT_MODELLED}: {line}" for line in remarks.not_modelled]
    faults = [f"{ASKED_FOR}: {line}" for line in remarks.faults]
    notices = [
        *(sarif.Notice(sarif.Level.ERROR, f"{GUEST_FAILED}{line}") for line in remarks.failures),
        *(sarif.Notice(sarif.Level.WARNING, text) for text in (*remarks.warnings, *unmodelled)),
        *(sarif.Notice(sarif.Level.NOTE, text) for text in (*faults, *remarks.refused, *remarks.notes)),
        *(
            sarif.Notice(sarif.Level.ERROR if strict and one.is_restore else sarif.Level.NOTE, _unjudged(one))
            for one in verdict.not_judged
        ),
        *([sarif.Notice(sarif.Level.ERROR, NOTHING_JUDGED)] if strict and verdict.is_vacuous else []),
    ]
    results = [_result(found, program) for found in verdict.findings]
    return sarif.Report(COMMAND, list(rules.values()), results, notices, failed=bool(remarks.failures))


def _rule(finding: Finding) -> str:
    """Returns the id of the rule that was broken: SARIF's ids have levels, and the causes of a kind have own texts."""
    return finding.kind if finding.cause == finding.kind else f"{finding.kind}/{finding.cause}"


def _result(finding: Finding, program: str) -> sarif.Result:
    kind, whole = "vcpu", f"VM {finding.vm}/vCPU {finding.vcpu}"
    if finding.vcpu is None:
        kind, whole = "vm", f"VM {finding.vm}"
    things = (sarif.Thing(kind, whole), *(sarif.Thing("register", f"{whole}/{name}") for name in finding.registers))
    stacks = sources.stacks(finding)
    place = sources.innermost(stacks) or (sarif.Place(program) if program else None)
    return sarif.Result(_rule(finding), LEVELS[finding.severity][0], _message(finding), things, place, stacks)
