# SPDX-License-Identifier: MIT
"""Replaying: what is counted, what a mismatch reports, and what ends a replay."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi import regid, uapi
from kvmabi.errors import UsageError
from kvmabi.model.system import System
from kvmabi.profiles import load_host, load_kernel
from kvmabi.steps.grammar import LETTERS, ON_REGISTER
from kvmabi.steps.replay import FAMILIES, LIFE_STEPS, SHOWN, TICK_STEPS, Result, counts, machine, replay
from kvmabi.steps.trace import Trace

OF = {
    "core": ["x0", "pc", "pstate"],
    "sve": ["z0", "p3", "ffr"],
    "sme": ["za.h[3]", "zt0", "svcr", "smcr_el1", "fpmr"],
    "sysreg": ["midr_el1", "sctlr_el1", "zcr_el1"],
    "firmware": ["psci_version", "std_bmap"],
    "demux": ["ccsidr[0]"],
}
LINES = ["N 1\tOK", "I 0 5 8\tOK", "G 0 6030000000100000\tOK 00*8.", "F 0 4\tEINVAL"]


def replayed(folder: Path, lines: list[str], **options: object) -> Result:
    """The result of a trace with these lines on the demo's host."""
    path = folder / "a.trace"
    path.write_text("# host sme-demo\n# seq 1.0\n" + "".join(f"{line}\n" for line in lines))
    host, result = load_host("sme-demo"), Result()
    replay(Trace(str(path)), machine(System(host, load_kernel(host.kernel))), result, **options)  # type: ignore[arg-type]
    return result


@pytest.mark.slow
@given(st.sets(st.sampled_from(FAMILIES), min_size=1), st.sampled_from(sorted(ON_REGISTER)), st.data())
def test_a_register_counts_for_its_family_alone(families: set[str], op: str, data: st.DataObject) -> None:
    """SME's system registers belong to sme."""
    family = data.draw(st.sampled_from(sorted(OF)))
    name = data.draw(st.sampled_from(OF[family]))
    counted = counts(frozenset(families))
    assert counted(f"{op} 0 {regid.parse(name):x}") == (family in families)


@pytest.mark.parametrize("op", sorted(set(LETTERS) - ON_REGISTER))
def test_a_vcpus_life_counts_for_every_family(op: str) -> None:
    """The table of writable masks, devices and other ioctls do not count."""
    assert counts(frozenset({"core"}))(f"{op} 0") == (op in LIFE_STEPS)


def test_every_step_counts_where_no_family_is_named(tmp_path: Path) -> None:
    """And the answers are the model's."""
    result = replayed(tmp_path, LINES)
    assert (result.steps, result.mismatches) == (len(LINES), 0)


def test_a_family_leaves_the_others_steps_out(tmp_path: Path) -> None:
    """Steps that are not counted are done nevertheless."""
    assert replayed(tmp_path, LINES, families=["sve"]).steps == len(LINES) - 1
    assert replayed(tmp_path, LINES, families=["core"]).steps == len(LINES)


def test_a_mismatch_reports_step_expectation_and_reason(tmp_path: Path) -> None:
    """Only the first ones are stored, all are counted."""
    result = replayed(tmp_path, [*LINES[:2], *["F 0 4\tOK"] * (SHOWN + 3)])
    assert (result.mismatches, len(result.first)) == (SHOWN + 3, SHOWN)
    first = result.first[0]
    assert (first.line, first.sequence, first.step) == (5, "1.0", "F 0 4")
    assert (first.expected, first.got) == ("OK", "EINVAL")
    assert "neither SVE nor SME" in str(first)


def test_lists_that_differ_show_only_the_differences(tmp_path: Path) -> None:
    """A list has hundreds of IDs: only the names of missing and extra ones are reported."""
    host = load_host("sme-demo")
    path = tmp_path / "a.trace"
    ids = " ".join(f"{uapi.KVM_REG_ARM64 | n:x}" for n in range(8))
    path.write_text(f"# host sme-demo\nN 1\tOK\nI 0 5 8\tOK\nL 0 4096\tOK 8 {ids}\n")
    result = Result()
    replay(Trace(str(path)), machine(System(host, load_kernel(host.kernel))), result)
    (mismatch,) = result.first
    assert mismatch.expected.startswith("OK 8 with ")
    assert " pstate " in mismatch.got
    assert "6030000000100000" not in mismatch.got


@pytest.mark.parametrize(
    "line",
    ["N x\tOK", "G 0 zz\tOK", "S 0 0 q\tOK", "I 0 5 x\tOK", "F 0 x\tOK", "L 0 x\tOK", "I 0\tOK", "? 1\tOK", "X\tOK"],
)
def test_what_is_not_a_step_is_named(tmp_path: Path, line: str) -> None:
    """With its line number."""
    with pytest.raises(UsageError, match=r"a\.trace:4: .* is not a step"):
        replayed(tmp_path, ["N 1\tOK", line])


def test_a_missing_vcpu_is_a_bad_descriptor(tmp_path: Path) -> None:
    """The answer is EBADF, as from a kernel, and the reason says so."""
    (mismatch,) = replayed(tmp_path, ["N 1\tOK", "G 1 6030000000100000\tOK"]).first
    assert mismatch.got == "EBADF"
    assert "is not open" in mismatch.reason


def test_every_letter_replays(tmp_path: Path) -> None:
    """Traces can have every kind of step."""
    lines = ["N 1\tOK", "V 0\tEEXIST", "W 100000\tEINVAL", "I 0 5 8\tOK", "i 0 5 8 0 0 0 0 0 0\tOK"]
    lines += ["g 0 6030000000100000 7\tEFAULT", "s 0 6030000000100000 7 1\tEFAULT", "l 0 4096 1\tEFAULT 336"]
    lines += ["X s ae00 0\tOK 12", "A v ae00\tEINVAL", "D 7 0\tOK", "q d0 3 0 0\tOK 20", "h d0 99 9 0\tENXIO"]
    lines += ["o d0 3 0 -\tEFAULT", "R 0\tENXIO", "Q\tOK"]
    result = replayed(tmp_path, lines)
    assert [(mismatch.step, mismatch.got) for mismatch in result.first] == []


def test_progress_is_reported(tmp_path: Path) -> None:
    """Every few thousand steps, whether they agree or not."""
    ticks: list[int] = []
    replayed(tmp_path, ["N 1\tOK"] + ["R 0\tENOEXEC"] * (2 * TICK_STEPS), tick=ticks.append)
    assert ticks == [TICK_STEPS, 2 * TICK_STEPS]


def test_a_trace_without_steps_fails(tmp_path: Path) -> None:
    """Nothing was compared."""
    with pytest.raises(UsageError, match="has no steps"):
        replayed(tmp_path, ["# nothing"])
