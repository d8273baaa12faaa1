# SPDX-License-Identifier: MIT
"""A verdict is exact only if it names what was lost, of the vCPU that lost it, and nothing else."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kvmabi.testing.vmms.judge import Outcome, difference, judge
from kvmabi.testing.vmms.play import Scenario
from kvmabi.testing.vmms.stage import Place

A, B, OTHER = (2, 0, "x0"), (2, 0, "x1"), (2, 1, "x0")


class Loss(NamedTuple):
    """A register of a finding."""

    name: str


class Finding(NamedTuple):
    """A finding as far as the judge looks at it."""

    vm: int
    vcpu: int
    losses: tuple[Loss, ...]
    severity: str


class NotJudged(NamedTuple):
    """A vCPU that was not judged."""

    vm: int
    vcpu: int
    is_restore: bool


class Verdict(NamedTuple):
    """A verdict."""

    findings: tuple[Finding, ...] = ()
    not_judged: tuple[NotJudged, ...] = ()


def says(*places: Place, severity: str = "lost", aside: tuple[NotJudged, ...] = ()) -> Verdict:
    return Verdict(tuple(Finding(vm, vcpu, (Loss(name),), severity) for vm, vcpu, name in places), aside)


def scenario(*truth: Place, latent: tuple[Place, ...] = (), mistake: str | None = "not read") -> Scenario:
    return Scenario(0, (), ("move",), frozenset(truth), frozenset(latent), mistake)


@pytest.mark.parametrize(
    ("verdict", "of", "outcome"),
    [
        (says(), scenario(mistake=None), Outcome.CLEAN),
        (says(A), scenario(mistake=None), Outcome.FALSE_ALARM),
        (says(A, severity="latent"), scenario(mistake=None), Outcome.FALSE_ALARM),
        (says(A, B), scenario(A, B), Outcome.EXACT),
        (says(A, severity="changed"), scenario(A), Outcome.EXACT),
        (says(A, severity="latent"), scenario(latent=(A,)), Outcome.EXACT),
        (says(A, severity="latent"), scenario(A), Outcome.WRONG_SET),
        (says(A), scenario(latent=(A,)), Outcome.WRONG_SET),
        (says(A), scenario(A, B), Outcome.WRONG_SET),
        (says(A, B), scenario(A), Outcome.WRONG_SET),
        (says(OTHER), scenario(A), Outcome.WRONG_SET),
        (says(), scenario(A), Outcome.MISS),
        (says(aside=(NotJudged(2, 0, True),)), scenario(A), Outcome.NOT_JUDGED),
        (says(aside=(NotJudged(2, 0, False),)), scenario(A), Outcome.MISS),
        (says(aside=(NotJudged(2, 1, True),)), scenario(A), Outcome.MISS),
        (says(OTHER, aside=(NotJudged(2, 0, True),)), scenario(A, OTHER), Outcome.NOT_JUDGED),
        (says(OTHER, aside=(NotJudged(2, 0, True),)), scenario(A), Outcome.WRONG_SET),
    ],
)
def test_judge(verdict: Verdict, of: Scenario, outcome: Outcome) -> None:
    assert judge(verdict, of) is outcome


def test_difference_names_what_is_missing_and_what_is_too_much() -> None:
    assert difference(says(A, OTHER), scenario(A, B)) == (frozenset({B}), frozenset({OTHER}))
