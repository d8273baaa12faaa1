# SPDX-License-Identifier: MIT
"""Each bug shows its expected observation and first lie, and its own fix removes it."""

from dataclasses import replace

import pytest

from kvmabi.errors import UsageError
from kvmabi.fpstate.catalogue import ABSENT, NOT_APPLICABLE, REPRODUCES, bugs, find_bug, search
from kvmabi.fpstate.variants import commits, find_commit, find_variant, presets

MAINLINE = [n for n, v in presets().items() if v.window]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(bugs()))
def test_observation_and_first_lie(name: str) -> None:
    """The last step breaks the bug's observation, and the first metadata invariant to break is the expected one."""
    bug = bugs()[name]
    finding = search(bug, find_variant(bug.present_in[0]))
    assert finding.outcome == REPRODUCES
    assert finding.trace is not None
    assert all(bug.looks_for.wants(b) for b in finding.trace.observation)
    lie = finding.trace.first_lie
    assert (lie[1].invariant if lie else "") == bug.lie


@pytest.mark.slow
@pytest.mark.parametrize("name", list(bugs()))
def test_fix_alone_mends_the_last_kernel_that_has_it(name: str) -> None:
    """The fixing commits on top of the last preset of the window remove the bug."""
    bug = bugs()[name]
    last = find_variant(bug.present_in[-1])
    bits = [c.bit for c in map(find_commit, bug.fixed_by) if c is not None]
    assert search(bug, last.plus(*bits)).outcome == ABSENT


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, b in bugs().items() if any(find_commit(c) for c in b.introduced)])
def test_without_the_introducing_commit_it_is_not_there(name: str) -> None:
    """Removing the introducing commit from the first preset of the window removes the bug."""
    bug = bugs()[name]
    first = find_variant(bug.present_in[0])
    # 93ae6b01bafe alone is masked: the commit that exposes it is listed last
    commit = find_commit(bug.introduced[-1])
    assert commit is not None
    assert search(bug, first.minus(commit.bit)).outcome in (ABSENT, NOT_APPLICABLE)


def test_signal_fix_needs_both_commits() -> None:
    """F1 still reproduces with only one of its two fixes."""
    assert search(bugs()["F1"], find_variant("v6.16-sig_smstop")).outcome == REPRODUCES


@pytest.mark.slow
def test_b1_shows_alone_when_b2_is_masked() -> None:
    """The control that discards only live SVE state separates the two bugs of one commit."""
    control = find_variant("v6.12-prep-live")
    assert search(bugs()["B1"], control).outcome == REPRODUCES
    assert search(bugs()["B2"], control).outcome == ABSENT


def test_kernel_neon_loss_needs_a_preemptible_section() -> None:
    """A2 does not reproduce without PREEMPT_RT on any kernel."""
    bug = bugs()["A2"]
    calm = replace(bug, config=bug.config.with_flags(rt=False))
    assert {search(calm, find_variant(n)).outcome for n in MAINLINE} == {ABSENT}


def test_unknown_bug_is_misuse() -> None:
    """The error lists the catalogued bugs."""
    with pytest.raises(UsageError, match="C1x"):
        find_bug("Z9")
    assert find_bug("c1X").id == "C1x"


def test_commit_ids_are_hexadecimal_or_marked_as_never_merged() -> None:
    """Every merged commit has an id of 12 hexadecimal digits."""
    for commit in commits().values():
        assert commit.release == "never" or (len(commit.id) == 12 and int(commit.id, 16))
