# SPDX-License-Identifier: MIT
"""The judgements of ``kvmabi fpstate`` as JUnit's XML: one function for each subcommand that judges."""

from __future__ import annotations

from kvmabi.cli.junit import Case, Suite, write
from kvmabi.fpstate.audit import Audit
from kvmabi.fpstate.catalogue import bugs
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.explorer import BOUND, Result
from kvmabi.fpstate.render.text import text
from kvmabi.fpstate.trace import Trace
from kvmabi.fpstate.variants import Variant


def check(variant: Variant, config: Config, inv: str, result: Result, trace: Trace | None) -> str:
    """One case, which is skipped if a bound was reached: the invariants hold in this configuration."""
    undecided = f"undecided: the bound on {result.bound} was reached" if result.verdict == BOUND else ""
    case = _case(variant, f"{inv} hold in {config.summary}", trace, result.seconds, undecided)
    return _write("check", [case], f"{result.states} states, depth {result.depth}")


def replay(trace: Trace, stop: str) -> str:
    """One case: these events violate nothing on this kernel; ``stop`` says why they could not all happen, if so."""
    output = f"the runs part at {stop}" if stop else ""
    return _write("replay", [_case(trace.variant, f"{len(trace.steps)} steps", trace)], output)


def audit(found: Audit) -> str:
    """A case for each catalogued bug that the base or the backport has: the backport does not have it."""
    remaining = {one.bug.id: one for one in found.remaining}
    cases = []
    for bug in bugs().values():
        if bug.id in remaining:
            trace = remaining[bug.id].trace
            details = text(trace) if trace is not None else ""
            cases.append(Case(found.base.name, f"{bug.id}: {bug.title}", 0.0, bug.observed, bug.id, details))
        elif bug.id in found.before:
            cases.append(Case(found.base.name, f"{bug.id}: {bug.title}"))
    unknown = "\n".join(f"not in the table, effect unknown: {line}" for line in found.unknown)
    return _write("audit", cases, unknown)


def _case(variant: Variant, name: str, trace: Trace | None, seconds: float = 0.0, skipped: str = "") -> Case:
    if trace is None or not trace.observation:
        return Case(variant.name, name, seconds, skipped=skipped)
    return Case(variant.name, name, seconds, trace.summary, trace.observation[0].clause, text(trace))


def _write(command: str, cases: list[Case], output: str) -> str:
    return write(Suite(f"kvmabi fpstate {command}", cases, output)) + "\n"
