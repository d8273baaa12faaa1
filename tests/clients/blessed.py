# SPDX-License-Identifier: MIT
"""What is known of a client's programs or tests: how each ends, and why it does not pass."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from clients.running import End, Result

FOLDER = Path(__file__).parent
SKIPPED = 4
"""The exit status of a kernel selftest that was skipped."""


class Outcome(StrEnum):
    """How a program ended."""

    PASS = "pass"
    SKIP = "skip"
    GUEST = "guest"
    """A vCPU was in KVM_RUN, where it would have run guest code."""
    FAIL = "fail"
    HUNG = "hung"
    """It was ended, and no vCPU was in KVM_RUN."""


class Blessed(NamedTuple):
    """A table of results: ``outcomes`` and ``reasons`` by program, and on what the programs run.

    ``seen`` is the newest version of the client of which they are the results. ``unsteady`` programs need guest
    code and end in another way on a slow machine, for the reason that is given: they may end in any way but well.
    ``may_pass`` are programs that need guest code unless they are done before they run their guest.
    """

    text: str
    seen: str
    kernel: str
    host: str
    outcomes: dict[str, Outcome]
    reasons: dict[str, str]
    findings: dict[str, list[str]]
    arguments: dict[str, list[str]]
    unsteady: dict[str, str]
    may_pass: dict[str, str]


@cache
def tables() -> dict[str, Blessed]:
    """The tables of all clients that have one, by the client's name."""
    files = [tomllib.loads((FOLDER / name).read_text("utf-8")) for name in ("kvm_ioctls.toml", "selftests.toml")]
    return {client: _table(table) for file in files for client, table in file.items()}


def _table(table: dict[str, Any]) -> Blessed:
    outcomes, reasons = {}, {}
    for outcome in Outcome:
        programs = table.get(outcome, {})
        outcomes |= dict.fromkeys(programs, outcome)
        if isinstance(programs, dict):
            reasons |= programs
    described = {name: table[name] for name in ("text", "seen", "kernel", "host")}
    return Blessed(**described, outcomes=outcomes, reasons=reasons, **_more(table))


def _more(table: dict[str, Any]) -> dict[str, Any]:
    return {name: table.get(name, {}) for name in ("findings", "arguments", "unsteady", "may_pass")}


def outcome(result: Result) -> Outcome:
    """How a run ended. kvmabi's own finding does not make a program fail."""
    if result.in_guest and result.status:
        return Outcome.GUEST
    if result.end is not End.ITSELF:
        return Outcome.HUNG
    return {0: Outcome.PASS, SKIPPED: Outcome.SKIP}.get(result.status, Outcome.FAIL)


def difference(client: str, program: str, result: Result) -> str:
    """How a result differs from the table's, with the line that would bless it; "" if it does not."""
    table = tables()[client]
    known, seen = table.outcomes.get(program), outcome(result)
    findings = sorted({finding["cause"] for finding in result.report.get("findings", [])})
    expected = table.findings.get(program, [])
    lines = []
    others = {Outcome.PASS: table.may_pass, Outcome.SKIP: {}}.get(seen, table.unsteady)
    if seen is not known and program not in others:
        was = "is in no list" if known is None else f"is in the list {known}"
        lines.append(f"{program} {was} of [{client}]: put it into {seen}, or mend what changed it")
    if findings != expected:
        lines.append(f"findings of {program}: {findings}, not {expected}")
    return "\n".join([*lines, result.output[-2000:], *result.log[-5:]]) if lines else ""
