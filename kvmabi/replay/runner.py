# SPDX-License-Identifier: MIT
"""Replaying a trace: every step is done on the model and its answer compared with the recorded one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.model.system import System
from kvmabi.replay.machine import Machine
from kvmabi.replay.trace import Step, Trace

SHOWN = 10
LIFE_STEPS = frozenset("NIFRL")
ID_STEPS = frozenset("GSPBb")
SME_SYSREGS = frozenset({"svcr", "smcr_el1", "tpidr2_el0", "smpri_el1", "smidr_el1", "fpmr"})
FIRMWARE = frozenset({"firmware", "firmware_bitmap"})
FAMILIES = ("core", "sve", "sme", "sysreg", "firmware", "demux")


@dataclass
class Mismatch:
    """A step that the model answered otherwise than the kernel."""

    file: str
    line: int
    sequence: str
    step: str
    expected: str
    got: str
    reason: str

    def __str__(self) -> str:
        why = f"\n  reason:   {self.reason}" if self.reason else ""
        return (
            f"{self.file}:{self.line}: sequence {self.sequence}: {self.step}\n"
            f"  expected: {self.expected}\n  got:      {self.got}{why}"
        )


@dataclass
class Result:
    """What a replay found: steps counted, mismatches among them, and the first of those."""

    steps: int = 0
    mismatches: int = 0
    first: list[Mismatch] = field(default_factory=list)


def counts(families: frozenset[str]) -> Callable[[Step], bool]:
    """Which steps a replay of some register families counts: theirs, and those of a vCPU's life."""
    wanted: dict[str, bool] = {}

    def counted(step: Step) -> bool:
        if step.op not in ID_STEPS:
            return step.op in LIFE_STEPS
        id = step.words[1]
        known = wanted.get(id)
        if known is None:
            known = wanted[id] = _family(id) in families
        return known

    return counted


def _family(id: str) -> str:
    decoded = regid.decode(int(id, 16))
    if decoded.name in SME_SYSREGS:
        return "sme"
    return "firmware" if decoded.family in FIRMWARE else decoded.family


def replay(
    trace: Trace,
    system: System,
    result: Result,
    *,
    families: Iterable[str] = (),
    tick: Callable[[int], None] | None = None,
) -> None:
    """Replay one trace into ``result``; ``families`` restricts what is counted, ``tick`` hears of progress.

    A system that has replayed other traces of the same host and kernel answers faster: it has their register maps.
    Raises UsageError for a trace without steps or with one that cannot be read.
    """
    counted = counts(frozenset(families)) if families else None
    machine = Machine(system, EventLog(kept=0))
    number = left_out = 0
    for number, step in enumerate(trace.steps(), 1):
        try:
            got = machine.do(step)
        except ValueError as error:
            raise UsageError(f"{trace.path}:{step.line}: {step.text[:60]!r} cannot be read: {error}") from None
        if tick is not None and number % 4096 == 0:
            tick(number)
        if counted is not None and not counted(step):
            left_out += 1
            continue
        if got == step.answer:
            continue
        result.mismatches += 1
        if len(result.first) < SHOWN:
            expected, got = _difference(step.answer, got)
            result.first.append(
                Mismatch(trace.path, step.line, step.sequence, step.text, expected, got, machine.reason)
            )
    machine.close()
    result.steps += number - left_out
    if not number:
        raise UsageError(f"{trace.path}: the trace has no steps")


def _difference(expected: str, got: str) -> tuple[str, str]:
    """Two answers, of long lists only what differs."""
    theirs, ours = expected.split(), got.split()
    if len(theirs) < 8 or len(ours) < 8 or theirs[0] != ours[0]:
        return expected, got
    missing = [regid.name_of(int(id, 16)) for id in theirs[2:] if id not in set(ours)]
    extra = [regid.name_of(int(id, 16)) for id in ours[2:] if id not in set(theirs)]
    if not missing and not extra:
        return expected[:200], f"{got[:200]} (another order)"
    return f"{theirs[0]} {theirs[1]} with {' '.join(missing)}", f"{ours[0]} {ours[1]} with {' '.join(extra)}"
