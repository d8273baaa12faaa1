# SPDX-License-Identifier: MIT
"""Replays a trace: does every step on the model and compares its answer with the recorded one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from kvmabi import hexruns, regid
from kvmabi.device import SystemFile
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.model.system import System
from kvmabi.profiles.sysregs import free_running_ids, status_bits
from kvmabi.steps.doer import Doer
from kvmabi.steps.grammar import register_of
from kvmabi.steps.modelport import ModelPort
from kvmabi.steps.trace import Trace

SHOWN = 10
TICK_STEPS = 4096
LIFE_STEPS = frozenset("NCUcZVIiFRELl")
SME_SYSREGS = frozenset({"svcr", "smcr_el1", "tpidr2_el0", "smpri_el1", "smidr_el1", "fpmr"})
FIRMWARE = frozenset({"firmware", "firmware_bitmap"})
ALL_BITS = (1 << 64) - 1
FAMILIES = ("core", "sve", "sme", "sysreg", "firmware", "demux")


@dataclass
class Mismatch:
    """A step that the model answered differently from the kernel."""

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
    """The result of replays: the number of steps, of mismatches among them, and the first mismatches.

    ``left_out`` are the places where a record is not what the program did, as the record says: "FILE:LINE: why".
    """

    steps: int = 0
    mismatches: int = 0
    first: list[Mismatch] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Count the steps and mismatches of other replays, too."""
        self.steps += other.steps
        self.mismatches += other.mismatches
        self.first += other.first[: SHOWN - len(self.first)]
        self.left_out += other.left_out


def counts(families: frozenset[str]) -> Callable[[str], bool]:
    """Returns whether a step counts in a replay of some register families: accesses to them, and a vCPU's life."""
    wanted: dict[str, bool] = {}

    def counted(step: str) -> bool:
        id = register_of(step)
        if not id:
            return step[0] in LIFE_STEPS
        if id not in wanted:
            wanted[id] = _family(id) in families
        return wanted[id]

    return counted


def _family(id: str) -> str:
    decoded = regid.decode(int(id, 16))
    if decoded.name in SME_SYSREGS:
        return "sme"
    return "firmware" if decoded.family in FIRMWARE else decoded.family


def machine(system: System) -> Doer:
    """Returns a doer of steps on a host's system; its events are not watched."""
    return Doer(ModelPort(SystemFile(system, EventLog(kept=0))))


def replay(
    trace: Trace,
    doer: Doer,
    result: Result,
    *,
    families: Iterable[str] = (),
    tick: Callable[[int], None] | None = None,
) -> None:
    """Replay one trace into ``result``; ``families`` restricts what is counted, ``tick`` is called with the progress.

    A doer that has replayed other traces of the same host and kernel (see ``machine``) is faster: its system holds
    their register maps, and the doer their steps. Raises UsageError for a trace without steps, or a bad one.
    """
    counted = counts(frozenset(families)) if families else None
    do = doer.do
    number = left_out = line = 0
    try:
        for line, text, answer in trace.steps():
            got = do(text)
            number += 1
            if number % TICK_STEPS == 0 and tick is not None:
                tick(number)
            if counted is not None and not counted(text):
                left_out += 1
            elif got != answer and not agree(text, answer, got):
                _note(result, Mismatch(trace.path, line, trace.sequence, text, answer, got, _reason(doer, got)))
    except ValueError as error:
        raise UsageError(f"{trace.path}:{line}: {error}") from None
    doer.close_vms()
    result.left_out += (f"{trace.path}:{place}: {why}" for place, why in trace.left_out)
    result.steps += number - left_out
    if not number:
        raise UsageError(f"{trace.path}: the trace has no steps")


def agree(step: str, answer: str, got: str) -> bool:
    """Whether two answers to a step are the same but for what changes with time: a counter, a timer's status."""
    if answer == got:
        return True
    head, _, data = answer.partition(" ")
    other_head, _, other_data = got.partition(" ")
    if step[0] != "G" or not head == other_head == "OK":
        return False
    id = int(register_of(step), 16)
    moving = ALL_BITS if id in free_running_ids() else status_bits().get(id, 0)
    return bool(moving) and not (_number(data) ^ _number(other_data)) & ~moving


def _number(data: str) -> int:
    return int.from_bytes(hexruns.expand(data), "little")


def _reason(doer: Doer, answer: str) -> str:
    return "" if answer.startswith("OK") else doer.reason


def _note(result: Result, mismatch: Mismatch) -> None:
    """Count a mismatch, and store it if it is among the first."""
    result.mismatches += 1
    if len(result.first) < SHOWN:
        mismatch.expected, mismatch.got = _difference(mismatch.expected, mismatch.got)
        result.first.append(mismatch)


def _difference(expected: str, got: str) -> tuple[str, str]:
    """Returns two answers, with long lists reduced to their differences."""
    theirs, ours = expected.split(), got.split()
    if len(theirs) < 8 or len(ours) < 8 or theirs[0] != ours[0]:
        return expected, got
    missing = [regid.name_of(int(id, 16)) for id in theirs[2:] if id not in set(ours)]
    extra = [regid.name_of(int(id, 16)) for id in ours[2:] if id not in set(theirs)]
    if not missing and not extra:
        return expected[:200], f"{got[:200]} (another order)"
    return f"{theirs[0]} {theirs[1]} with {' '.join(missing)}", f"{ours[0]} {ours[1]} with {' '.join(extra)}"
