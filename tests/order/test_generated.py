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

ACCUSED = {
    "an edit after the restore of an older checkpoint": (205848, 214378, 218104, 219329),
    "an edited standby whose mode changed": (200324, 208341),
    "a guest of the same image": (202135, 203946, 217427, 400110),
    "an edit right after a restore that looks first": (210838,),
    "a debugger's look before the save": (420500,),
}
"""Right runs that were accused once, by what was mistaken for a loss."""
MISJUDGED = {
    "a rollback of what differs, over a change of svcr": (401888, 402000, 404231),
    "passes over several vCPUs": (400050, 402644, 409030, 410051),
    "a torn save, and its parts": (405060, 405667, 405879, 420587),
    "a save that began as a look at what was restored": (400460,),
    "another vCPU's state, of few values": (400790, 400945, 421583),
    "two states into one vCPU": (403979, 420597),
    "INIT after a restore that left much alone": (405689, 409422),
    "a stale family in a standby": (420158, 420560),
    "the core registers of one of two sources": (404087, 412498),
    "another vCPU at which the VMM gave up": (411353,),
    "an edit of what svcr brought into being": (410289, 422052),
}
"""Wrong runs of which other registers than the lost ones, or none, were reported once, by what is in them."""


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
@pytest.mark.parametrize("what", ACCUSED)
def test_right_vmms_are_not_accused_again(what: str) -> None:
    assert [outcome(seed, wrong=False) for seed in ACCUSED[what]] == [Outcome.CLEAN] * len(ACCUSED[what])


@pytest.mark.slow
@pytest.mark.parametrize("what", MISJUDGED)
def test_wrong_vmms_are_judged_exactly_now(what: str) -> None:
    assert [outcome(seed, wrong=True) for seed in MISJUDGED[what]] == [Outcome.EXACT] * len(MISJUDGED[what])


@pytest.mark.slow
def test_wrong_vmms_are_found() -> None:
    """With exactly the registers that were lost; the rest are not judged, and the report says so."""
    found = [outcome(seed, wrong=True) for seed in range(SEED, SEED + WRONG)]
    assert found.count(Outcome.EXACT) >= EXACT * WRONG
    assert set(found) <= {Outcome.EXACT, Outcome.NOT_JUDGED}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_forecast(wrong: bool) -> None:
    """The same VMMs on the kernel that may have SME lose the same, and the verdict is as exact."""
    for seed in range(SEED, SEED + 20):
        runs = [play(seed, wrong=wrong, sme_kernel=kernel) for kernel in ("sme-v12", "sme-forecast")]
        with runs[0][0] as kvm, runs[1][0] as forecast:
            assert judge(kvm.verdict(), runs[0][1]) == judge(forecast.verdict(), runs[1][1])
            assert runs[0][1].truth == runs[1][1].truth


@pytest.mark.slow
@pytest.mark.parametrize("mistake", names())
def test_every_mistake_is_found(mistake: str) -> None:
    """Each kind of mistake, in three runs."""
    found = [outcome(seed, wrong=True, mistake=mistake) for seed in range(3)]
    assert set(found) <= {Outcome.EXACT, Outcome.NOT_JUDGED}
    assert Outcome.EXACT in found
