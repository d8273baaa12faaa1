# SPDX-License-Identifier: MIT
"""Fuzzing against recorded traces: sequences drawn from them at random, with a kernel's recorded answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random

from kvmabi.errors import UsageError
from kvmabi.fuzz.hunt import Finding
from kvmabi.model.system import System
from kvmabi.profiles import Host, Kernel
from kvmabi.steps.doer import Doer
from kvmabi.steps.replay import machine
from kvmabi.steps.trace import Trace

READS = frozenset("GBgLl")
Sequence = list[tuple[str, str]]
"""Steps with their recorded answers."""


def sequences(trace: Trace) -> Iterator[Sequence]:
    """The independent sequences of a trace."""
    current: Sequence = []
    for _, step, answer in trace.steps():
        if step.startswith("N ") and current:
            yield current
            current = []
        current.append((step, answer))
    if current:
        yield current


def hunt(
    traces: Iterable[tuple[Trace, Host, Kernel]],
    seed: int,
    steps: int,
    tick: Callable[[int], None] | None = None,
) -> Iterator[tuple[Finding, Host, Kernel]]:
    """Do at least ``steps`` recorded steps, of sequences that ``seed`` chooses, and yield what differs on the model.

    ``tick`` is called with the number of steps done. Stops when the traces have no more.
    """
    drawn = [(host, kernel, sequence) for trace, host, kernel in traces for sequence in sequences(trace)]
    Random(seed).shuffle(drawn)
    done = 0
    doers: dict[tuple[int, int], Doer] = {}
    for number, (host, kernel, sequence) in enumerate(drawn):
        if done >= steps:
            break
        key = id(host), id(kernel)  # two profiles may have one name
        if key not in doers:
            doers[key] = machine(System(host, kernel))
        try:
            finding = _finding(doers[key], number, sequence)
        except ValueError as error:
            raise UsageError(f"a trace of {host.name}: {error}") from None
        done += len(sequence)
        if tick is not None:
            tick(done)
        if finding is not None:
            yield finding, host, kernel
    for doer in doers.values():
        doer.close()


def _finding(doer: Doer, number: int, sequence: Sequence) -> Finding | None:
    for place, (step, answer) in enumerate(sequence):
        got = doer.do(step)
        if got != answer:
            return _shrunk(doer, number, sequence[: place + 1], got)
    return None


def _shrunk(doer: Doer, number: int, sequence: Sequence, wrong: str) -> Finding:
    """The finding without reads and refusals, if it still reproduces; a recording cannot answer a new sequence."""
    needed = [(step, answer) for step, answer in sequence[1:-1] if step[0] not in READS and answer.startswith("OK")]
    reduced = [*sequence[:1], *needed, sequence[-1]]
    answers = [doer.do(step) for step, _ in reduced]
    if answers[-1] != wrong:
        reduced = sequence
        answers = [doer.do(step) for step, _ in reduced]
    return Finding(number, [step for step, _ in reduced], [answer for _, answer in reduced], answers)


__all__ = ["hunt", "sequences"]
