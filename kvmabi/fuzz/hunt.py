# SPDX-License-Identifier: MIT
"""Does sequences on the model and on a kernel, and collects the differences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from kvmabi import gicnames
from kvmabi.fuzz.shrink import shrink
from kvmabi.steps.backends import Backend

BATCH_STEPS = 4000


@dataclass(frozen=True)
class Finding:
    """A sequence whose last step the model answers differently from the kernel.

    ``expected`` and ``got`` are the kernel's and the model's answers to every step; ``sequence`` is
    the number of the one that was shrunk.
    """

    sequence: int
    steps: list[str]
    expected: list[str]
    got: list[str]

    @property
    def kind(self) -> tuple[str, str, str]:
        """What distinguishes findings: the step's letter and register or attribute, and both answers' results."""
        op, *words = self.steps[-1].split()
        results = self.expected[-1].split()[0], self.got[-1].split()[0]
        about = words[1] if op in "GSPBbgs" else ""
        if op in "hoq":  # of registers of which there are many, all are of one kind
            about = gicnames.name_of(int(words[1]), int(words[2], 16)).partition("[")[0]
        return f"{op} {about}", *results


def first_difference(expected: Sequence[str], got: Sequence[str]) -> int | None:
    """Returns the index of the first step with different answers."""
    return next((place for place, pair in enumerate(zip(expected, got, strict=True)) if pair[0] != pair[1]), None)


def compare(kernel: Backend, model: Backend, steps: list[str]) -> Finding | None:
    """Do a sequence on both; a finding ends with the first step that differs."""
    expected, got = kernel.answers(steps), model.answers(steps)
    place = first_difference(expected, got)
    if place is None:
        return None
    end = place + 1
    return Finding(0, steps[:end], expected[:end], got[:end])


def hunt(
    kernel: Backend,
    model: Backend,
    sequences: Iterator[tuple[int, list[str]]],
    tick: Callable[[int, int], None] | None = None,
    known: Collection[tuple[str, ...]] = (),
) -> Iterator[Finding]:
    """Do numbered sequences on both and yield each difference, shrunk, unless its kind is one of the ``known``.

    ``tick`` is called after each batch with the number of the next sequence and how many steps were done.
    """
    while batch := _batch(sequences):
        steps = [step for _, sequence in batch for step in sequence]
        expected, got = kernel.answers(steps), model.answers(steps)
        start = 0
        for number, sequence in batch:
            end = start + len(sequence)
            place = first_difference(expected[start:end], got[start:end])
            if place is not None:
                shown = slice(start, start + place + 1)
                finding = Finding(number, sequence[: place + 1], expected[shown], got[shown])
                if finding.kind not in known:
                    yield _shrunk(kernel, model, finding)
            start = end
        if tick is not None:
            tick(batch[-1][0] + 1, len(steps))


def _batch(sequences: Iterator[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    batch: list[tuple[int, list[str]]] = []
    steps = 0
    for number, sequence in islice(sequences, BATCH_STEPS):
        batch.append((number, sequence))
        steps += len(sequence)
        if steps >= BATCH_STEPS:
            break
    return batch


def _shrunk(kernel: Backend, model: Backend, whole: Finding) -> Finding:
    """The smallest finding that shows the difference, or the sequence as it was if it does not reproduce."""

    def differs(fewer: list[str]) -> bool:
        finding = compare(kernel, model, fewer)
        return finding is not None and finding.kind == whole.kind

    if not differs(whole.steps):
        return whole
    shrunk = compare(kernel, model, shrink(whole.steps, differs))
    return replace(shrunk, sequence=whole.sequence) if shrunk else whole
