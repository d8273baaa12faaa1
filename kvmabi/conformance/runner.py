# SPDX-License-Identifier: MIT
"""Runs cases on a backend, and compares every answer with the one that the case expects."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from time import monotonic

from kvmabi.conformance import answers, macros
from kvmabi.conformance.case import Case
from kvmabi.conformance.language import MACROS, Concrete, Line, concrete
from kvmabi.errors import UsageError
from kvmabi.steps import grammar
from kvmabi.steps.backends.base import Backend
from kvmabi.steps.replay import agree

SHOWN = 5


@dataclass(frozen=True)
class Difference:
    """A line of a case with an unexpected answer; ``step`` is the step that the backend did."""

    line: str
    step: str
    expected: str
    got: str


@dataclass
class Outcome:
    """The outcome of a case: its differences, or why it was skipped (else ""), and the ``seconds`` it took."""

    case: Case
    differences: list[Difference] = field(default_factory=list)
    skipped: str = ""
    steps: int = 0
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """ "passed", "failed" or "skipped"."""
        return "skipped" if self.skipped else "failed" if self.differences else "passed"


def select(cases: Iterable[Case], *patterns: str) -> list[Case]:
    """The cases whose name matches one of the shell patterns, or all; UsageError for a pattern that matches none."""
    all_cases = list(cases)
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in all_cases):
            raise UsageError(f"no case matches {pattern!r}")
    return [case for case in all_cases if not patterns or any(fnmatchcase(case.name, pattern) for pattern in patterns)]


def run(backend: Backend, cases: Iterable[Case], tick: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """Run cases; ``tick`` gets each outcome. UsageError if none of them could be run, or a case is malformed."""
    host_features = backend.describe()
    outcomes = []
    for case in cases:
        for instance in case.for_host(host_features):
            outcomes.append(_run_one(backend, instance))
            if tick is not None:
                tick(outcomes[-1])
    if all(outcome.skipped for outcome in outcomes):
        reasons = sorted({outcome.skipped for outcome in outcomes})
        raise UsageError(f"none of {len(outcomes)} cases could be run: {'; '.join(reasons) or 'there are none'}")
    return outcomes


def _run_one(backend: Backend, case: Case) -> Outcome:
    outcome = Outcome(case, skipped=case.missing(backend.describe()))
    if not outcome.skipped:
        start = monotonic()
        try:
            if case.recorded:
                _compare_record(backend, outcome)
            else:
                _Run(backend, outcome).all(case.lines)
        except (UsageError, ValueError, ArithmeticError) as error:
            raise UsageError(f"{case.file}: case {case.name}: steps: {error}") from None
        outcome.seconds = monotonic() - start
    return outcome


def _compare_record(backend: Backend, outcome: Outcome) -> None:
    """Do the steps of a trace and compare the answers."""
    recorded = outcome.case.recorded
    outcome.steps = len(recorded)
    for (step, answer), got in zip(recorded, backend.answers(step for step, _ in recorded), strict=True):
        if not agree(step, answer, got) and len(outcome.differences) < SHOWN:
            outcome.differences.append(Difference(step, step, answer, got))


class _Run:
    """One case under way: steps wait until an answer is needed, then go to the backend together."""

    def __init__(self, backend: Backend, outcome: Outcome) -> None:
        self.backend = backend
        self.outcome = outcome
        self.names: answers.Names = {}
        self.saved: dict[str, macros.Saved] = {}
        self.waiting: list[tuple[Line, Concrete]] = []

    def all(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if line.step.split()[0] in MACROS:
                self.flush()
                self.outcome.steps += 1
                self.compare(line, Concrete(line.step, line.answer), macros.do(self.backend, line.step, self.saved))
                continue
            if answers.unknown_names(line.step, self.names):
                self.flush()
                if self.outcome.differences and answers.unknown_names(line.step, self.names):
                    return  # the answer that binds the name did not match
            for step in concrete(line, self.backend.describe(), self.backend.kernel):
                text = answers.resolve(step.step, self.names)
                grammar.parse(text)  # the executor reads a word that is not a number as 0
                self.waiting.append((line, step._replace(step=text)))
        self.flush()

    def flush(self) -> None:
        got = self.backend.answers(step.step for _, step in self.waiting)
        self.outcome.steps += len(got)
        for (line, step), answer in zip(self.waiting, got, strict=True):
            self.compare(line, step, answer)
        self.waiting.clear()

    def compare(self, line: Line, step: Concrete, got: str) -> None:
        if line.step.split()[0] in MACROS:
            agreed = got == step.answer or step.answer == "any"
        else:
            agreed = answers.agrees(step.answer, got, step.size, self.backend.describe(), self.names)
        if not agreed and len(self.outcome.differences) < SHOWN:
            self.outcome.differences.append(Difference(line.step, step.step, step.answer, got))
