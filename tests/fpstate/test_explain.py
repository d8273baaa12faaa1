# SPDX-License-Identifier: MIT
"""explain and diff: which events touch a field, and where two kernels diverge."""

import pytest

from kvmabi.errors import UsageError
from kvmabi.fpstate.catalogue import bugs, search
from kvmabi.fpstate.compare import differences, side_by_side
from kvmabi.fpstate.explain import ALIASES, MEANING, explain
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.state import Cpu, Task, Vcpu
from kvmabi.fpstate.trace import replay
from kvmabi.fpstate.variants import find_variant


def test_every_piece_of_state_is_explained() -> None:
    """All fields except the expectations have a description, and each alias names a field."""
    fields = {f for kind in (Cpu, Task, Vcpu) for f in kind.FIELDS if not f.startswith("want_")}
    assert fields == set(MEANING)
    assert set(ALIASES.values()) <= fields


@pytest.mark.slow
def test_explain_sees_what_a_fix_changed() -> None:
    """do_sve_acc writes fpsimd_cpu from 6.12 on even when foreign; KVM stops writing TIF_SVE with 6.14."""
    before, after = (explain("TIF_SVE", find_variant(k)) for k in ("v6.12", "v6.14"))
    assert "vcpu_load" in before.writes["Task"]
    assert "vcpu_load" not in after.writes["Task"]
    assert "ret_to_user" in explain("fp_type", find_variant("v6.16")).reads["Task"]


@pytest.mark.slow
def test_explain_is_repeatable() -> None:
    """Two calls use the same random run."""
    assert explain("st", find_variant("v6.8")) == explain("st", find_variant("v6.8"))


def test_unknown_state_is_misuse() -> None:
    """The error lists the names."""
    with pytest.raises(UsageError, match="FOREIGN"):
        explain("TIF_NOTHING", find_variant("v6.8"))


def test_kernels_part_where_the_fix_is() -> None:
    """C1's events on 6.8 and 6.10 diverge at the switch back to the section."""
    bug = bugs()["C1"]
    trace = search(bug, find_variant("v6.8")).trace
    assert trace is not None
    runs = [replay(find_variant(k), bug.config, trace.events, select("obs")) for k in ("v6.8", "v6.10")]
    first = differences(runs[0][0], runs[1][0])[0]
    assert first.event == "switch to T0"
    assert ("CPU0.st", "U(T1)", "None") in first.fields
    assert "✗ v6.8" in side_by_side(runs[0][0], runs[1][0], ("", ""))


def test_replay_stops_where_an_event_has_no_cause() -> None:
    """B1's untrapped SVE write cannot happen once the trap is back on."""
    bug = bugs()["B1"]
    trace = search(bug, find_variant("v6.12")).trace
    assert trace is not None
    replayed, stop = replay(find_variant("v6.14"), bug.config, trace.events, select("obs"))
    assert "user_write_z" in stop
    assert replayed.observation == ()
