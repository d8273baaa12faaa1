# SPDX-License-Identifier: MIT
"""Random sequences: the same for the same seed, of all kinds, legible to every backend, without running counters."""

from __future__ import annotations

from collections import Counter

import pytest

from kvmabi.fuzz import Generator, World
from kvmabi.fuzz.world import LEFT_ALONE
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.grammar import LETTERS, parse

SEQUENCES = 150


def test_a_sequence_follows_from_seed_and_number(world: World) -> None:
    """Two generators of a seed agree, in any order; another seed makes other sequences."""
    one, other = Generator(3, world), Generator(3, world)
    assert other.sequence(8) == one.sequence(8)
    assert other.sequence(2) == one.sequence(2)
    assert one.sequence(2) != one.sequence(3)
    assert Generator(4, world).sequence(2) != one.sequence(2)


def test_every_kind_of_step_is_there(world: World) -> None:
    """Sequences are of steps that backends know, begin with a new VM and together have every letter of an idle VM."""
    generator = Generator(1, world)
    letters: Counter[str] = Counter()
    for number in range(SEQUENCES):
        steps = generator.sequence(number)
        assert steps[0].startswith("N ")
        for step in steps:
            letters[parse(step)[0]] += 1
    assert set(letters) == set(LETTERS) - set("QCUcZE")
    assert letters["G"] + letters["S"] + letters["P"] > sum(letters.values()) // 2


def test_running_counters_are_left_alone(world: World) -> None:
    """Free-running registers are neither read nor written: two kernels would never agree on them."""
    generator = Generator(2, world)
    for number in range(SEQUENCES):
        for step in generator.sequence(number):
            op, *words = step.split()
            if op in "GSPgs":
                assert int(words[1], 16) not in LEFT_ALONE


@pytest.mark.slow
def test_sequences_reach_far(model: ModelBackend, world: World) -> None:
    """Many sequences get a finalised vCPU with state, and every errno of the ABI comes up."""
    generator = Generator(1, world)
    results: Counter[str] = Counter()
    finalized = 0
    for number in range(SEQUENCES):
        steps = generator.sequence(number)
        answers = model.answers(steps)
        results.update(answer.split()[0] for answer in answers)
        finalized += any(step[0] == "F" and answer == "OK" for step, answer in zip(steps, answers, strict=True))
    assert finalized > SEQUENCES // 2
    assert results["OK"] > sum(results.values()) // 3
    assert {"EPERM", "ENOENT", "EINVAL", "EBUSY", "EFAULT", "E2BIG", "ENOEXEC", "EINTR", "EEXIST"} <= results.keys()
