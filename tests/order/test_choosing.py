# SPDX-License-Identifier: MIT
"""Which of several saves a VMM meant: what was tried decides it, and where nothing was, it is not judged."""

from __future__ import annotations

from itertools import pairwise

import pytest
from vmms import RUNNING, differing, fill, guest, in_order, lost, put, restore, run, save, vcpu_of

from kvmabi import Kvm
from kvmabi.kvm import Vcpu

SCALAR = ("x", "sp", "pc", "elr", "tpidr")


def unjudged(kvm: Kvm) -> list[str]:
    """Why restores were not judged."""
    return [each.why for each in kvm.verdict().not_judged if each.is_restore]


def two_vcpus(kvm: Kvm) -> tuple[Vcpu, Vcpu]:
    """A VM of two vCPUs whose guests have run."""
    vm = kvm.create_vm()
    first, second = (guest(vm, 3, index, seed=50 * index) for index in range(2))
    run(first)
    run(second)
    return first, second


def test_destroyed_values_show_the_save(kvm: Kvm) -> None:
    """A debugger looks and edits z3; svcr comes last in the restore and destroys it: z3 is lost, too.

    An edit afterwards differs from both states.
    """
    source = guest(kvm.create_vm(), 3)
    run(source)
    before = source["z3"]
    source["z3"] = bytes(256)
    save(source)
    source["z3"] = before
    saved = save(source)
    target = vcpu_of(kvm.create_vm())
    restore(target, saved, [*(name for name in in_order(saved) if name != "svcr"), "svcr"])
    missing = differing(target, saved)
    target["x0"] = 99
    run(target)
    assert "z3" in missing
    assert lost(kvm) == missing


@pytest.mark.parametrize("timed", [False, True], ids=["without time", "with time"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["one vCPU", "two VMs"])
def test_nothing_written_decides_between_two_saves(kvm: Kvm, elsewhere: bool, timed: bool) -> None:
    """Two saves differ in z3 only, 0 in the newer one; no z is restored: z3 is named, the others are reported.

    If the guest's time was restored it decides.
    """
    source = guest(kvm.create_vm(), 3)
    run(source)
    old = save(source)
    if elsewhere:
        source = vcpu_of(kvm.create_vm())
        put(source, old)
    run(source)
    source["z3"] = bytes(256)
    saved = save(source)
    target = vcpu_of(kvm.create_vm())
    names = [name for name in in_order(saved) if timed or name not in RUNNING]
    restore(target, saved, [name for name in names if not (name[0] == "z" and name[1:].isdigit())])
    missing = differing(target, saved)
    run(target)
    assert "z3" in differing(target, old)
    assert lost(kvm) == missing
    assert [why[:20] for why in unjudged(kvm)] == ([] if timed else ["z3: which of 2 saves"])


def test_the_save_whose_registers_were_restored(kvm: Kvm) -> None:
    """A debugger reads vectors and edits one, then the VMM saves the others: the look was not restored."""
    source = guest(kvm.create_vm(), 3)
    run(source)
    source["p1"] = bytes(len(source["p1"]))
    save(source, [name for name in source.names() if name.startswith((*SCALAR, "z", "fpsr"))])
    source["p1"] = bytes([5] * len(source["p1"]))
    saved = save(source, [name for name in source.names() if name.startswith(SCALAR)])
    target = vcpu_of(kvm.create_vm())
    put(target, saved)
    target["x0"] = 99
    run(target)
    assert {"p1", "p2", "z1"} <= lost(kvm)


def test_counters_written_back_restore_nothing(kvm: Kvm) -> None:
    """A VMM writes back all that it read of two VMs: the counters, which have run on, show no restore."""
    vcpus = [vcpu_of(kvm.create_vm()) for _ in range(2)]
    for number, vcpu in enumerate(vcpus):
        for name in (*(f"x{index}" for index in range(5)), "sp"):
            vcpu[name] = number + 1
    for vcpu in reversed(vcpus):
        put(vcpu, save(vcpu))
        kvm.close(vcpu.fd)
    assert kvm.verdict().findings == ()


def test_swapped_states_of_the_pass_that_was_restored(kvm: Kvm) -> None:
    """vCPU 0 has two saves in three passes, vCPU 1 three; the first ones are restored into each other.

    In the second pass vCPU 0 has the x5 that vCPU 1 had in the first one.
    """
    vcpus = two_vcpus(kvm)
    first = [save(vcpu) for vcpu in vcpus]
    for number in (1, 2):
        for vcpu in vcpus:
            run(vcpu)
        vcpus[0]["x5"] = first[1]["x5"]
        vcpus[1]["x6"] = number
        for vcpu in vcpus:
            save(vcpu)
    vm = kvm.create_vm()
    targets = [vcpu_of(vm, index) for index in range(2)]
    for vcpu, saved in zip(targets, reversed(first), strict=True):
        put(vcpu, saved)
    missing = [differing(vcpu, saved) for vcpu, saved in zip(targets, first, strict=True)]
    for vcpu in targets:
        run(vcpu)
    found = [{name for of in kvm.findings() if of.vcpu == index for name in of.registers} for index in range(2)]
    assert "x5" in missing[0]
    assert found == missing


def test_vcpu_that_was_looked_at_in_a_rollback(kvm: Kvm) -> None:
    """vCPU 0 is rolled back; of vCPU 1 the VMM reads all, and leaves three changed registers as they are."""
    vcpus = two_vcpus(kvm)
    saves = [save(vcpu) for vcpu in vcpus]
    for vcpu in vcpus:
        run(vcpu)
    for name in ("z3", "z4", "fpsr"):
        vcpus[1][name] = bytes(len(vcpus[1][name]))
    put(vcpus[0], saves[0])
    save(vcpus[1])
    vcpus[1]["cntvct_el0"] = saves[1]["cntvct_el0"]
    for vcpu in vcpus:
        run(vcpu)
    assert {(of.vcpu, name) for of in kvm.findings() for name in of.registers} == {(1, "z3"), (1, "z4"), (1, "fpsr")}


def test_reads_that_go_on_are_no_older_save(kvm: Kvm) -> None:
    """The guest runs on in the middle of a save; an edit after the restore is one, though x30 was so before."""
    source = guest(kvm.create_vm(), 3)
    run(source)
    source["x30"], names = 0, source.names()
    at = names.index("x30")
    early = save(source, names[:at])
    run(source)
    changed = {f"x{number}" for number in (4, 5, 6, 7, 8, 9, 30)}
    for name in changed:
        source[name] = 77
    target = vcpu_of(kvm.create_vm())
    put(target, early | save(source, names[at:]))
    target["x30"] = 0
    run(target)
    assert lost(kvm) == changed - {"x30"}


def test_all_was_restored_and_a_tenth_is_other(kvm: Kvm) -> None:
    """A stretch of system registers has the next one's value, INIT's or a common one; all else is as saved."""
    source = guest(kvm.create_vm())
    run(source)
    names = (
        "tcr",
        "esr",
        "far",
        "mair",
        "amair",
        "vbar",
        "contextidr",
        "tpidr",
        "afsr0",
        "par",
        "elr",
        "sp",
        "cntkctl",
    )
    system = [f"{name}_el1" for name in names]
    for number, name in enumerate(system):
        source[name] = 0x800 * (number % 2)
    for number in range(32):
        source[f"z{number}"] = bytes(256)
    saved = save(source)
    target = vcpu_of(kvm.create_vm())
    put(target, saved | {name: saved[other] for name, other in pairwise(system)})
    missing = differing(target, saved)
    run(target)
    assert missing == set(system[:-1])
    assert lost(kvm) == missing


def test_old_value_in_a_restore_of_what_is_there_already(kvm: Kvm) -> None:
    """A standby has the last checkpoint and gets it again, x7 as in the one before: it is lost, not edited."""
    source, standby = guest(kvm.create_vm(), 3), vcpu_of(kvm.create_vm())
    run(source)
    old = save(source)
    put(standby, old)
    run(source)
    source["x7"], source["x8"] = 7, 8
    saved = save(source)
    put(standby, saved)
    save(standby)
    run(source)
    source["x9"] = 9
    last = save(source)
    put(standby, last | {"x7": old["x7"]})
    run(standby)
    assert lost(kvm) == {"x7"}


def test_registers_that_only_one_save_has(kvm: Kvm) -> None:
    """A checkpoint with ZA is restored, then x3 gets the value of a newer one without: the rows of ZA decide."""
    source = guest(kvm.create_vm(), 2)
    run(source)
    old = save(source)
    run(source)
    source["svcr"], source["x3"] = 0, 3
    save(source)
    target = vcpu_of(kvm.create_vm())
    put(target, old)
    target["x3"] = 3
    run(target)
    verdict = kvm.verdict()
    assert verdict.findings == ()
    assert [pair.edited for pair in verdict.judged] == [("x3",)]


def test_the_state_of_init_is_a_save_by_luck(kvm: Kvm) -> None:
    """A vCPU was looked at before it was set up, and saved after; INIT after a restore leaves what the look saw."""
    source = vcpu_of(kvm.create_vm())
    save(source)
    source["x3"], source["tpidr_el1"] = 3, 5
    saved = save(source)
    target = vcpu_of(kvm.create_vm())
    put(target, saved)
    target.init({"sve", "sme"})
    run(target)
    assert lost(kvm) == {"x3", "tpidr_el1"}


@pytest.mark.parametrize("timed", [False, True], ids=["without time", "with time"])
def test_values_of_a_third_save_do_not_decide(kvm: Kvm, timed: bool) -> None:
    """All predicates are of an older save, and p2 is what the last two differ in: it is named, the rest is reported.

    If the guest's time was restored it decides.
    """
    source = guest(kvm.create_vm(), 3)
    predicates = [f"p{number}" for number in range(16)]
    oldest = save(source)
    run(source)
    for name in (*predicates[4:], "x3"):
        source[name] = bytes([number + 1 for number in source[name]])
    save(source)
    source["p2"] = bytes([number + 3 for number in source["p2"]])
    newest = save(source)
    target = vcpu_of(kvm.create_vm())
    mixed = newest | {name: oldest[name] for name in predicates}
    put(target, {name: value for name, value in mixed.items() if timed or name not in RUNNING})
    run(target)
    assert lost(kvm) == {*predicates[4:], *(["p2"] if timed else [])}
    assert [each.why[:3] for each in kvm.verdict().not_judged if each.vm == 2] == ([] if timed else ["p2:"])


def test_the_guests_time_shows_the_save(kvm: Kvm) -> None:
    """All that two saves differ in was restored from the older one, but for the guest's time: a stale family."""
    source = guest(kvm.create_vm(), 3)
    run(source)
    old = save(source)
    source["x1"], source["x28"] = 1, 28
    saved = save(source)
    target = vcpu_of(kvm.create_vm())
    put(target, saved | {name: old[name] for name in ("x1", "x28")})
    run(target)
    assert lost(kvm) == {"x1", "x28"}


def test_a_rollback_that_writes_the_time_only(kvm: Kvm) -> None:
    """A rollback writes what differs and leaves vectors out; only the guest's time differs beyond those."""
    source = guest(kvm.create_vm(), 3)
    run(source)
    saved = save(source)
    run(source)
    source["z3"] = bytes([7] * len(source["z3"]))
    run(source)
    for name, value in saved.items():
        if source[name] != value and name != "z3":
            source[name] = value
    run(source)
    assert lost(kvm) == {"z3"}


def test_a_stop_of_the_guests_time_restores_nothing(kvm: Kvm) -> None:
    """A VMM reads all at a stop, and writes the time back before it goes on; a debugger changes x3 meanwhile."""
    vcpu = guest(kvm.create_vm(), 3)
    for number in range(3):
        run(vcpu)
        seen = save(vcpu)
        vcpu["x3"] = number
        vcpu["cntvct_el0"] = seen["cntvct_el0"]
    run(vcpu)
    assert lost(kvm) == set()


def test_a_save_of_core_registers_belongs_to_no_pass(kvm: Kvm) -> None:
    """The last pass reads vCPU 0's core registers only; it was restored, with the whole of vCPU 1."""
    vcpus = two_vcpus(kvm)
    for seed in (0, 9):
        for vcpu in vcpus:
            run(vcpu)
            fill(vcpu, seed + 50 * vcpu.index)
        for vcpu in vcpus:
            save(vcpu)
    for vcpu in vcpus:
        run(vcpu)
    names = [name for name in vcpus[0].names() if name[0] in "xz" and name[1:].isdigit()]
    names += ["sp", "pc", "sp_el1", "elr_el1", "fpsr"]
    for vcpu in vcpus:
        for number, name in enumerate(names):
            vcpu[name] = bytes([100 + number]) * len(vcpu[name])
    core = save(vcpus[0], ["svcr", *names])
    other = save(vcpus[1])
    vm = kvm.create_vm()
    targets = [vcpu_of(vm, index) for index in range(2)]
    restore(targets[0], core)
    put(targets[1], other)
    for target in targets:
        run(target)
    assert "tpidr_el0" in lost(kvm)
    assert not core.keys() & lost(kvm)


def test_a_look_at_a_clone_is_no_source_of_the_next_one(kvm: Kvm) -> None:
    """Each clone is read before it runs and after: the first is not the source of the second, x3 is lost in both."""
    source = guest(kvm.create_vm(), 3)
    run(source)
    saved = save(source)
    clones = []
    for _ in range(2):
        clone = vcpu_of(kvm.create_vm())
        put(clone, {name: value for name, value in saved.items() if name != "x3"})
        if clones:
            save(clones[0])
        else:
            save(clone)
            run(clone)
        clones.append(clone)
    run(clones[1])
    assert [(finding.vm, finding.registers) for finding in kvm.findings()] == [(2, ("x3",)), (3, ("x3",))]


def test_a_forgotten_vcpu_is_not_nearer_to_an_older_save(kvm: Kvm) -> None:
    """A debugger reads vCPU 1 and moves z3 away from what INIT gives, then both are saved; z3 is lost, too."""
    vcpus = two_vcpus(kvm)
    vcpus[1]["z3"] = 0
    save(vcpus[1])
    vcpus[1]["z3"] = bytes([3] * 256)
    saves = [save(vcpu) for vcpu in vcpus]
    vm = kvm.create_vm()
    targets = [vcpu_of(vm, index) for index in range(2)]
    put(targets[0], saves[0])
    restore(targets[1], saves[1], ["x5", "fpsr"])
    missing = differing(targets[1], saves[1])
    for target in targets:
        run(target)
    assert "z3" in missing
    assert lost(kvm) == missing


@pytest.mark.parametrize(("newer", "lost_are"), [(("sp",), set()), (("sp", "tpidr_el1"), {"x3", "x5"})])
def test_a_third_of_what_differs_decides_nothing(kvm: Kvm, newer: tuple[str, ...], lost_are: set[str]) -> None:
    """Two saves differ in three groups of registers: with one of them newer it is not judged, with two the newer is."""
    source = guest(kvm.create_vm(), 3)
    run(source)
    older = save(source)
    source["sp"], source["tpidr_el1"], source["x3"], source["x5"] = 11, 12, 13, 15
    latest = save(source)
    mixed = older | {name: latest[name] for name in newer}
    target = vcpu_of(kvm.create_vm())
    put(target, {name: value for name, value in mixed.items() if name not in RUNNING})
    run(target)
    assert lost(kvm) == lost_are
    assert [why.split(":")[0] for why in unjudged(kvm)] == ([] if lost_are else ["x3 x5 sp tpidr_el1"])


def test_values_cut_many_at_a_time_are_no_edits(kvm: Kvm) -> None:
    """A standby gets an unchanged state a second time, with the upper halves of x0-x30 zero."""
    source = guest(kvm.create_vm(), 3)
    run(source)
    standby = vcpu_of(kvm.create_vm())
    halves = [f"x{number}" for number in range(31)]
    for cut in (False, True):
        saved = save(source)
        put(standby, saved | ({name: saved[name][:4] + bytes(4) for name in halves} if cut else {}))
    run(standby)
    assert lost(kvm) == set(halves)
