# SPDX-License-Identifier: MIT
"""Against recorded traces: sequences drawn from them at random, with the answers that a kernel once gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random

from kvmabi.events import EventLog
from kvmabi.fuzz.hunt import Finding
from kvmabi.model.system import System
from kvmabi.profiles import Host, Kernel
from kvmabi.replay.machine import Machine
from kvmabi.replay.trace import Step, Trace

READS = frozenset("GBL")


def sequences(trace: Trace) -> Iterator[list[Step]]:
    """The independent sequences of a trace."""
    current: list[Step] = []
    for step in trace.steps():
        if step.op == "N" and current:
            yield current
            current = []
        current.append(step)
    if current:
        yield current


def hunt(
    traces: Iterable[tuple[Trace, Host, Kernel]],
    seed: int,
    steps: int,
    tick: Callable[[int], None] | None = None,
) -> Iterator[tuple[Finding, Host, Kernel]]:
    """Do at least ``steps`` recorded steps, of sequences that ``seed`` chooses, and tell what differs on the model.

    ``tick`` hears how many steps were done. Stops when the traces have no more.
    """
    drawn = [(host, kernel, sequence) for trace, host, kernel in traces for sequence in sequences(trace)]
    Random(seed).shuffle(drawn)
    done = 0
    machines: dict[tuple[str, str], Machine] = {}
    for number, (host, kernel, sequence) in enumerate(drawn):
        if done >= steps:
            break
        key = host.name, kernel.name
        if key not in machines:
            machines[key] = Machine(System(host, kernel), EventLog(kept=0))
        finding = _finding(machines[key], number, sequence)
        done += len(sequence)
        if tick is not None:
            tick(done)
        if finding is not None:
            yield finding, host, kernel
    for machine in machines.values():
        machine.close()


def _finding(machine: Machine, number: int, sequence: list[Step]) -> Finding | None:
    for place, step in enumerate(sequence):
        got = machine.do(step)
        if got != step.answer:
            return _shrunk(machine, number, sequence[: place + 1], got)
    return None


def _shrunk(machine: Machine, number: int, sequence: list[Step], wrong: str) -> Finding:
    """The finding without reads and refusals, if it stays one: the record tells nothing of other sequences."""

    def needed(step: Step) -> bool:
        return step.op not in READS and step.answer.startswith("OK")

    kept = [*sequence[:1], *filter(needed, sequence[1:-1]), sequence[-1]]
    answers = [machine.do(step) for step in kept]
    if answers[-1] != wrong:
        kept = sequence
        answers = [machine.do(step) for step in kept]
    return Finding(number, [step.text for step in kept], [step.answer for step in kept], answers)


__all__ = ["hunt", "sequences"]
