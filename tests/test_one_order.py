# SPDX-License-Identifier: MIT
"""The order of a restore stands in one place: what states it, in words, in cases or in C, agrees with the plan."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

import pytest
from ctools import CC, INCLUDE, ROOT, STRICT

import kvmabi
from kvmabi import Event, Plan, regid
from kvmabi.model.plan import Stage, is_shared, stage_of
from kvmabi.order.causes import CAUSES
from kvmabi.testing import run_program

EXAMPLES = ROOT / "vmm_examples"
SETS = {"KVM_ARM_VCPU_INIT", "KVM_ARM_VCPU_FINALIZE", "KVM_SET_ONE_REG"}


def steps(events: list[Event], vm: int) -> list[str]:
    """The ioctls of a VM that restore, in the words of a plan's steps."""
    return [
        f"{event.what} {regid.name_of(event.register)}" if event.register is not None else event.what
        for event in events
        if event.vm == vm and event.what in SETS
    ]


def test_the_page_lists_the_stages() -> None:
    """The numbered list in docs/explanation/order.md is the titles of the stages."""
    text = (ROOT / "docs/explanation/order.md").read_text("utf-8")
    listed = re.findall(r"^(\d)\. (.+)$", text, re.MULTILINE)
    assert [title.replace("`", "") for _, title in listed] == [stage.title for stage in Stage]
    assert [int(number) for number, _ in listed] == [stage + 1 for stage in Stage]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["sme-demo", "sve512-no-sme", "sme-nosve-sme512"])
def test_the_example_in_c_follows_the_plan(tmp_path: Path, host: str) -> None:
    """Every ioctl of its restore is the plan's for the registers that it saved, in the same place."""
    program = tmp_path / "save_restore"
    source = EXAMPLES / "save_restore.c"
    subprocess.run([*CC, "-std=gnu11", *STRICT, f"-I{INCLUDE}", str(source), "-o", str(program)], check=True)
    events = list(run_program(program, host=host).events)
    restored = steps(events, vm=2)
    saved = [event.register for event in events if event.vm == 1 and event.what == "KVM_GET_ONE_REG"]
    ids = [id for id in dict.fromkeys(saved) if id is not None and f"KVM_SET_ONE_REG {regid.name_of(id)}" in restored]
    assert restored == [str(step) for step in Plan.of(_as_listed(events, ids)).steps()]


def _as_listed(events: list[Event], ids: list[int]) -> list[int]:
    """The IDs in the order of the save, which reads the list from its beginning."""
    last = {event.register: event.number for event in events if event.vm == 1 and event.what == "KVM_GET_ONE_REG"}
    return sorted(ids, key=lambda id: last[id])


def test_the_example_in_python_follows_the_plan() -> None:
    """The same of the example in Python, whose save is the list."""
    example = runpy.run_path(str(EXAMPLES / "save_restore.py"))
    with kvmabi.open() as kvm:
        saved = example["save"](example["running_guest"](kvm.create_vm()))
        example["restore"](kvm.create_vm(), saved)
        assert steps(list(kvm.log.events), vm=2) == [str(step) for step in Plan.of(saved).steps()]


def test_fixes_state_the_order_of_the_plan() -> None:
    """Fixes name stages by their titles, and put none of them behind a later one."""
    assert CAUSES["vls-late"].fix == (
        f"write {Stage.LENGTHS.title} between KVM_ARM_VCPU_INIT and {Stage.FINALIZE.title}"
    )
    assert CAUSES["destroyed"].fix == f"write {Stage.SVCR.title} before these registers"
    assert CAUSES["init"].rule == Stage.INIT.why
    for cause in CAUSES.values():
        for first, second in re.findall(r"write (\w+)\b.* before (za|z\d*|p\d*)\b", cause.fix):
            assert stage_of(regid.parse(first)) < Stage.REST, second


def test_views_that_clear_come_before_what_they_clear() -> None:
    """PMCNTENCLR_EL0 and its like: a write of Linux 6.12 clears what the register that it views has set."""
    names = [
        "pmcntenset_el0",
        "x0",
        "pmcntenclr_el0",
        "pmintenset_el1",
        "pmintenclr_el1",
        "pmovsclr_el0",
        "pmovsset_el0",
    ]
    planned = [regid.name_of(id) for id in Plan.of(map(regid.parse, names)).ids]
    for name in ("pmcnten", "pminten", "pmovs"):
        clear, set = (next(of for of in planned if of.startswith(f"{name}{kind}")) for kind in ("clr", "set"))
        assert planned.index(clear) < planned.index(set)
    assert planned[3:] == ["pmcntenset_el0", "x0", "pmintenset_el1", "pmovsset_el0"]


def test_what_vcpus_share() -> None:
    """ID registers and firmware bitmaps are written by the first vCPU only; MPIDR_EL1 is each vCPU's own."""
    shared = [name for name in ("midr_el1", "mpidr_el1", "std_bmap", "x0", "svcr") if is_shared(regid.parse(name))]
    assert shared == ["midr_el1", "std_bmap"]
