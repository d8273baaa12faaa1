# SPDX-License-Identifier: MIT
"""Random VMMs of which it is known what they lose: no right one is accused, and no wrong one passes for clean.

``benchmarks/verdicts.py`` measures the same with as many runs as there is time for.
"""

from __future__ import annotations

import pytest

from kvmabi.testing.vmms.judge import Outcome, judge
from kvmabi.testing.vmms.mistakes import names
from kvmabi.testing.vmms.play import play

RIGHT, WRONG = 100, 120
EXACT = 0.97
SEED = 1000


def outcome(seed: int, *, wrong: bool, mistake: str | None = None) -> Outcome:
    """How the verdict on a run compares with the truth."""
    kvm, scenario = play(seed, wrong=wrong, mistake=mistake)
    with kvm:
        return judge(kvm.verdict(), scenario)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SEED, SEED + RIGHT, 25))
def test_right_vmms_are_not_accused(first: int) -> None:
    assert {seed: found for seed in range(first, first + 25) if (found := outcome(seed, wrong=False)) != "clean"} == {}


@pytest.mark.slow
def test_wrong_vmms_are_found() -> None:
    """With exactly the registers that were lost; the rest are not judged, and the report says so."""
    found = [outcome(seed, wrong=True) for seed in range(SEED, SEED + WRONG)]
    assert found.count(Outcome.EXACT) >= EXACT * WRONG
    assert set(found) <= {Outcome.EXACT, Outcome.NOT_JUDGED}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", names())
def test_every_mistake_is_found(mistake: str) -> None:
    """Each kind of mistake, in three runs."""
    found = [outcome(seed, wrong=True, mistake=mistake) for seed in range(3)]
    assert set(found) <= {Outcome.EXACT, Outcome.NOT_JUDGED}
    assert Outcome.EXACT in found
