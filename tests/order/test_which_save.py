# SPDX-License-Identifier: MIT
"""Which of several saves a vCPU was restored from, and where that, or whether it was restored, is not to be seen."""

from __future__ import annotations

from vmms import (
    VLS,
    Saved,
    differing,
    fill,
    guest,
    host,
    in_order,
    lost,
    mp_state,
    opened,
    put,
    restore,
    restored,
    run,
    save,
    vcpu_of,
)

from kvmabi import Kvm, KvmError, uapi


def passes(kvm: Kvm, count: int, *, unchanged: frozenset[int] = frozenset()) -> list[list[Saved]]:
    """Saves of a VM of two vCPUs that goes on between them, by pass and vCPU; some vCPUs never change."""
    vm = kvm.create_vm()
    vcpus = [guest(vm, 3, index, seed=50 * index) for index in range(2)]
    found = []
    for number in range(count):
        for vcpu in vcpus:
            if vcpu.index not in unchanged:
                fill(vcpu, 50 * vcpu.index + 7 * number)
        found.append([save(vcpu) for vcpu in vcpus])
        for vcpu in vcpus:
            run(vcpu)
    return found


def test_guest_of_the_same_image_is_not_a_restore(kvm: Kvm) -> None:
    """Half of a save's registers are written, many as saved and many not: a guest that was set up."""
    saved = save(guest(kvm.create_vm()))
    alike = {name: saved[name] for name in saved if name.startswith(("x", "z")) and "_" not in name}
    changed = [name for name in saved if name[0] == "p" and name[1:].isdigit()] + ["fpsr", "tpidr_el0", "elr_el1"]
    other = vcpu_of(kvm.create_vm())
    restore(other, alike | {name: bytes([3] * len(saved[name])) for name in changed})
    run(other)
    assert lost(kvm) == set()


def test_edit_of_an_older_checkpoint(kvm: Kvm) -> None:
    """Two registers distinguish the checkpoints; the older one is restored and a third register is edited."""
    source = guest(kvm.create_vm(), 3)
    old = save(source)
    run(source)
    source["x3"], source["x5"] = 1, 2
    save(source)
    target = restored(kvm.create_vm(), old)
    target["x9"] = 99
    run(target)
    verdict = kvm.verdict()
    assert verdict.findings == ()
    assert [pair.edited for pair in verdict.judged if pair.vm == 2] == [("x9",)]


def test_edited_standby_whose_mode_changed(kvm: Kvm) -> None:
    """What the last checkpoint's mode destroyed of the one before is no sign of that one."""
    source, standby = guest(kvm.create_vm(), 3), vcpu_of(kvm.create_vm())
    put(standby, save(source))
    run(source)
    source["svcr"] = 0
    put(standby, save(source))
    standby["x9"] = 99
    run(standby)
    assert lost(kvm) == set()


def test_delta_over_a_mode_change() -> None:
    """A rollback reads all and writes what differs, svcr too: the vectors that were equal are lost."""
    with opened(host(sve=(128, 256), sme=(128, 256))) as kvm:
        vcpu = guest(kvm.create_vm(), 1)
        saved = save(vcpu)
        run(vcpu)
        vcpu["svcr"], vcpu["x0"] = 0, 5
        restore(vcpu, saved, [name for name in saved if name[0] in "zp" and name[1:].isdigit()])
        run(vcpu)
        seen = save(vcpu)
        restore(vcpu, saved, [name for name in in_order(saved) if seen.get(name) != saved[name]])
        missing = differing(vcpu, saved)
        run(vcpu)
        assert {"z0", "z31", "p0"} <= missing
        assert lost(kvm) == missing


def test_forgotten_vcpu_is_of_the_others_pass(kvm: Kvm) -> None:
    """vCPU 1 has the state of the first pass: what vCPU 0 lacks is that pass's, not the newest one's."""
    saves = passes(kvm, 3)
    target = kvm.create_vm()
    forgotten, right = vcpu_of(target, 0), vcpu_of(target, 1)
    put(right, saves[0][1])
    missing = differing(forgotten, saves[0][0])
    for vcpu in (forgotten, right):
        run(vcpu)
    assert lost(kvm) == missing
    assert {finding.cause for finding in kvm.findings()} == {"vcpu-forgotten"}


def test_forgotten_vcpu_of_one_pass_or_another(kvm: Kvm) -> None:
    """vCPU 1 is the same in both passes: only what vCPU 0 lacks of both saves is reported, the rest is named."""
    vm = kvm.create_vm()
    vcpus = [guest(vm, 3, index, seed=50 * index) for index in range(2)]
    for vcpu in vcpus:
        run(vcpu)
    old, other = map(save, vcpus)
    for vcpu in vcpus:
        run(vcpu)
    vcpus[0]["x3"], vcpus[0]["tpidr_el1"] = 0, 7
    new = save(vcpus[0])
    save(vcpus[1])
    target = kvm.create_vm()
    forgotten, right = vcpu_of(target, 0), vcpu_of(target, 1)
    put(right, other)
    either = differing(forgotten, old) & differing(forgotten, new)
    for vcpu in (forgotten, right):
        run(vcpu)
    assert lost(kvm) == either
    assert not either & {"x3", "tpidr_el1"}
    (doubt,) = (each for each in kvm.verdict().not_judged if each.is_restore)
    assert "x3" in doubt.why
    assert "tpidr_el1" in doubt.why


def test_look_out_of_turn_is_not_the_pass(kvm: Kvm) -> None:
    """A debugger reads and edits vCPU 1 before both are saved: a right restore followed by an edit has no finding."""
    vm = kvm.create_vm()
    vcpus = [guest(vm, 3, index, seed=50 * index) for index in range(2)]
    for vcpu in vcpus:
        run(vcpu)
    save(vcpus[1])
    vcpus[1]["x2"] = 99
    saves = [save(vcpu) for vcpu in vcpus]
    target = kvm.create_vm()
    copies = [vcpu_of(target, index) for index in range(2)]
    for vcpu, saved in zip(copies, saves, strict=True):
        put(vcpu, saved)
    copies[1]["x20"] = 5
    for vcpu in copies:
        run(vcpu)
    assert lost(kvm) == set()


def test_edit_after_a_restore_that_looks_first(kvm: Kvm) -> None:
    """The last register is read and found equal, and written at once: the restore's fault or an edit, not judged."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    last = "tpidr_el1"
    for name in [*(name for name in in_order(saved) if name != last), last]:
        try:
            if target[name] != saved[name]:
                target[name] = saved[name]
        except KvmError:
            target[name] = saved[name]
    target[last] = 5
    run(target)
    verdict = kvm.verdict()
    assert verdict.findings == ()
    assert [each.why.partition(":")[0] for each in verdict.not_judged if each.is_restore] == [last]


def test_giving_up_leaves_the_other_vcpus_unfinished(kvm: Kvm) -> None:
    """Most of vCPU 0 is written when a write to vCPU 1 is refused: only the refused register is reported."""
    saves = passes(kvm, 1)[0]
    target = kvm.create_vm()
    first, second = (vcpu_of(target, index) for index in range(2))
    restore(first, saves[0], in_order(saves[0])[:-20])
    restore(second, saves[1], [name for name in in_order(saves[1]) if name.startswith("x")])
    assert restore(second, saves[1], ["sve_vls"]) == 1
    for vcpu in (first, second):
        kvm.close(vcpu.fd)
    assert {(finding.vm, finding.vcpu, *finding.registers) for finding in kvm.findings()} == {(2, 1, "sve_vls")}


def test_file_cut_short_before_values_that_tell(kvm: Kvm) -> None:
    """Thirty registers with the values that they have after INIT, as saved, and no other: named as not judged."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    plain = [name for name in save(target) if saved.get(name) == target[name] and name not in VLS][:30]
    fresh = vcpu_of(kvm.create_vm())
    restore(fresh, saved, plain)
    run(fresh)
    verdict = kvm.verdict()
    assert verdict.findings == ()
    assert [each.vm for each in verdict.not_judged if each.is_restore] == [3]


def test_init_after_a_restore_that_only_looked() -> None:
    """A rollback finds nearly all as it was saved; INIT then undoes that: all of it is lost."""
    with opened(host(sme=())) as kvm:
        vcpu = guest(kvm.create_vm())
        saved = save(vcpu)
        run(vcpu)
        for number in range(20):
            vcpu[f"x{number}"] = 1
        run(vcpu)
        seen = save(vcpu)
        restore(vcpu, saved, [name for name in in_order(saved) if seen[name] != saved[name]])
        vcpu.init({"sve"})
        missing = differing(vcpu, saved)
        run(vcpu)
        assert "z0" in missing
        assert lost(kvm) == missing


def test_a_later_save_is_not_the_source(kvm: Kvm) -> None:
    """After a bad restore a vCPU goes on, the other does not, and the VM is rolled back to that: two restores."""
    vm = kvm.create_vm()
    vcpus = [guest(vm, 3, index, seed=50 * index) for index in range(2)]
    for vcpu in vcpus:
        run(vcpu)
    first = [save(vcpu, [name for name in vcpu.names() if name not in ("x3", "tpidr_el1")]) for vcpu in vcpus]
    whole = [{"x3": vcpu["x3"]} for vcpu in vcpus]
    for vcpu in vcpus:
        run(vcpu)
        vcpu.init({"sve", "sme"})
        put(vcpu, first[vcpu.index])
    missing = set().union(*(differing(vcpu, saved) for vcpu, saved in zip(vcpus, whole, strict=True)))
    for vcpu in vcpus:
        run(vcpu)
    vcpus[0]["x9"] = 99
    second = [save(vcpu) for vcpu in vcpus]
    for vcpu in vcpus:
        run(vcpu)
        fill(vcpu, 50 * vcpu.index + 9)
        run(vcpu)
        put(vcpu, second[vcpu.index])
    for vcpu in vcpus:
        run(vcpu)
    assert lost(kvm) == missing == {"x3"}


def test_the_beginning_of_a_better_source_is_none_of_another(kvm: Kvm) -> None:
    """Half of a save was restored when it was dropped: a dump of half the registers of another guest fits by shape."""
    names = [name for name in vcpu_of(kvm.create_vm()).names() if name not in VLS]
    half = names[: len(names) * 2 // 3]
    save(vcpu_of(kvm.create_vm()), [name for name in half if name not in ("x3", "x5")])
    source = vcpu_of(kvm.create_vm())
    source["x3"], source["x5"] = 3, 5
    saved = save(source)
    dropped = vcpu_of(kvm.create_vm())
    restore(dropped, saved, half)
    kvm.close(dropped.fd)
    assert lost(kvm) == set()
    assert [pair for pair in kvm.verdict().judged if pair.vm == 4] == []


def test_two_registers_of_every_boot_are_no_restore(kvm: Kvm) -> None:
    """Two machines boot at the same address, their CPU models differ, and a probe writes back what it read."""
    for model in (1, 0):
        vcpu = vcpu_of(kvm.create_vm())
        if model:
            vcpu["id_aa64isar0_el1"] = 0
        vcpu["pc"], vcpu["x0"] = 0x40080000, 0x48000000
        seen = save(vcpu)
        put(vcpu, seen)
        run(vcpu)
    assert lost(kvm) == set()


def test_a_vm_that_never_ran_and_is_reset_is_not_restored() -> None:
    """The VMM reads all of a VM before its first run, resets it, and starts it with a vCPU that is off."""
    with opened("neoverse-v1") as kvm:
        vm = kvm.create_vm()
        vcpus = [vm.create_vcpu(index) for index in range(2)]
        for vcpu in vcpus:
            vcpu.init(set())
        states = [save(vcpu) for vcpu in vcpus]
        for vcpu in vcpus:
            mp_state(vcpu, uapi.KVM_GET_MP_STATE)
        for vcpu, state in zip(vcpus, states, strict=True):
            vcpu.init({"power_off"} if vcpu.index else set())
            put(vcpu, save(vcpu) | {"x0": state["x0"]})
            mp_state(vcpu, uapi.KVM_SET_MP_STATE, 5 * vcpu.index)
        for vcpu in vcpus:
            run(vcpu)
        assert lost(kvm) == set()


def test_a_few_registers_of_another_guest_are_not_restored_to_one_that_has_run(kvm: Kvm) -> None:
    """A debugger reads the core registers of one guest and writes most of the same values to another one, which ran."""
    source, other = guest(kvm.create_vm()), guest(kvm.create_vm(), seed=3)
    core = [f"x{number}" for number in range(31)]
    seen = save(source, core)
    run(other)
    restore(other, seen | {"x3": bytes([3] * 8), "x20": bytes([20] * 8)})
    run(other)
    assert lost(kvm) == set()
    assert kvm.verdict().judged == ()


def test_another_vcpus_state_over_a_restored_one_that_is_like_it(kvm: Kvm) -> None:
    """Two vCPUs differ in MPIDR only; one gets both states, the second by looks: mistake or edit is not to be seen."""
    source, target = kvm.create_vm(), kvm.create_vm()
    guests = [guest(source, 3, index) for index in range(2)]
    states = [save(vcpu) for vcpu in guests]
    vcpus = [vcpu_of(target, index) for index in range(2)]
    for vcpu, state in zip(vcpus, states, strict=True):
        put(vcpu, state)
    for name in in_order(states[1]):
        if vcpus[0][name] != states[1][name]:
            vcpus[0][name] = states[1][name]
    for vcpu in vcpus:
        run(vcpu)
    assert lost(kvm) <= {"id_aa64pfr0_el1", "id_pfr1_el1"}
    assert [each.vcpu for each in kvm.verdict().not_judged if each.is_restore and "mpidr_el1" in each.why] == [0]
