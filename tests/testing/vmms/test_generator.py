# SPDX-License-Identifier: MIT
"""The generator of VMMs keeps its contract: a seed is a run, right runs lose nothing, wrong runs lose something."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kvmabi.events import Event
from kvmabi.testing.vmms.behaviours import BEHAVIOURS
from kvmabi.testing.vmms.mistakes import MISTAKES, names
from kvmabi.testing.vmms.play import Scenario, play

PRINT = "from kvmabi.testing.vmms.play import play; print(play({seed}, wrong={wrong}, checked=False)[1])"


def scenario_of(seed: int, *, wrong: bool, mistake: str | None = None, behaviour: str | None = None) -> Scenario:
    """A run without the checker."""
    kvm, scenario = play(seed, wrong=wrong, mistake=mistake, behaviour=behaviour, checked=False)
    kvm.close()
    return scenario


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_same_seed_same_run(wrong: bool) -> None:
    """A run is drawn from its seed alone, other seeds give other runs."""
    runs = [[scenario_of(seed, wrong=wrong) for seed in range(8)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len({run.story for run in runs[0]}) == len(runs[0])


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_same_seed_same_run_in_another_process(wrong: bool) -> None:
    """The order of sets, which differs between processes, decides nothing."""
    seeds = (3, 11)
    for seed in seeds:
        printed = {
            subprocess.run(
                [sys.executable, "-c", PRINT.format(seed=seed, wrong=wrong)],
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.partition("truth=")[0]
            for hash_seed in ("1", "2")
        }
        assert len(printed) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, 150, 10))
def test_right_runs_lose_nothing(seed: int) -> None:
    """By the generator's own comparison, which fails for a right run that loses a register."""
    for number in range(seed, seed + 10):
        scenario = scenario_of(number, wrong=False)
        assert (scenario.truth, scenario.latent, scenario.mistake) == (frozenset(), frozenset(), None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, 150, 10))
def test_wrong_runs_lose_something(seed: int) -> None:
    """Each makes one mistake, and only by it a register is lost, or refused and equal by luck."""
    for number in range(seed, seed + 10):
        scenario = scenario_of(number, wrong=True)
        assert scenario.mistake in names()
        assert scenario.truth | scenario.latent
        assert not scenario.truth & scenario.latent
        assert sum("mistake" in line for line in scenario.story) == 1


@pytest.mark.slow
@pytest.mark.parametrize("mistake", names())
def test_every_mistake_can_be_asked_for(mistake: str) -> None:
    """No mistake is dead code: each loses something in a run of its own."""
    scenario = scenario_of(1, wrong=True, mistake=mistake)
    assert scenario.mistake == mistake
    assert scenario.truth | scenario.latent


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", [behaviour.name for behaviour in BEHAVIOURS])
def test_every_behaviour_can_be_asked_for(behaviour: str) -> None:
    assert scenario_of(1, wrong=False, behaviour=behaviour).behaviours == (behaviour,)


def test_names_are_unique() -> None:
    """Tables count by name."""
    assert len(set(names())) == len(MISTAKES)
    assert len({behaviour.name for behaviour in BEHAVIOURS}) == len(BEHAVIOURS)


def test_runs_can_be_watched() -> None:
    """The generator drives ioctls that any watcher of events sees, guest entries among them."""
    kvm, _ = play(2, wrong=False)
    with kvm:
        watched: list[Event] = []
        kvm.log.watchers.append(watched.append)
        kvm.create_vm()
        assert watched
        assert kvm.log.count > 100
