# SPDX-License-Identifier: MIT
"""Inferred pairs: which save a vCPU was restored from, by shape, by VM, by vCPU, by values; and what is not judged."""

from __future__ import annotations

from itertools import pairwise

import pytest
from vmms import VLS, Saved, differing, fill, guest, in_order, lost, opened, restore, restored, run, save, vcpu_of

from kvmabi import Kvm
from kvmabi.kvm import Vcpu
from kvmabi.order import OrderChecker, Severity

X = {f"x{number}" for number in range(31)}
SYSTEM = ("sp_el1", "elr_el1", "ttbr0_el1", "ttbr1_el1", "vbar_el1", "far_el1", "mair_el1", "tpidr_el1")


def causes(kvm: Kvm) -> dict[str, set[str]]:
    """The registers of every cause."""
    found: dict[str, set[str]] = {}
    for finding in kvm.findings():
        found.setdefault(finding.cause, set()).update(finding.registers)
    return found


def pairs(kvm: Kvm) -> dict[tuple[int, int], tuple[int, int]]:
    """The source of each vCPU that was judged."""
    return {(pair.vm, pair.vcpu): (pair.source_vm, pair.source_vcpu) for pair in kvm.verdict().judged}


def two(kvm: Kvm) -> tuple[list[Saved], list[Vcpu]]:
    """The saves of a VM of two vCPUs, and the two new vCPUs of another VM."""
    vm, target = kvm.create_vm(), kvm.create_vm()
    saves = [save(guest(vm, 3, index, seed=50 * index)) for index in range(2)]
    return saves, [vcpu_of(target, index) for index in range(2)]


def put(vcpu: Vcpu, saved: Saved, changes: Saved | None = None) -> None:
    """A restore in the right order of all that FINALIZE leaves, with changes."""
    restore(vcpu, saved | (changes or {}), in_order(saved))


def test_swapped_vcpus_are_found(kvm: Kvm) -> None:
    """Each vCPU holds the other one's state to the last byte: the VM is restored, and both vCPUs are wrong."""
    saves, vcpus = two(kvm)
    for vcpu, saved in zip(vcpus, reversed(saves), strict=True):
        put(vcpu, saved)
    for vcpu in vcpus:
        run(vcpu)
    assert pairs(kvm) == {(2, 0): (1, 0), (2, 1): (1, 1)}
    for finding in kvm.findings():
        assert finding.cause == "wrong-vcpu"
        assert {*X, "z0", "za.h[0]", "mpidr_el1"} <= set(finding.registers)


def test_one_vcpus_state_written_over_another_ones(kvm: Kvm) -> None:
    """vCPU 0 gets its own state and then vCPU 1's, vCPU 1 nothing: not edits, and vCPU 1 is forgotten."""
    saves, vcpus = two(kvm)
    for saved in saves:
        put(vcpus[0], saved)
    missing = differing(vcpus[0], saves[0])
    for vcpu in vcpus:
        run(vcpu)
    assert [(finding.vcpu, finding.cause) for finding in kvm.findings()] == [
        (0, "wrong-vcpu"),
        (1, "vcpu-forgotten"),
    ]
    assert set(kvm.findings()[0].registers) == missing


def test_single_vcpu_vm_takes_any_vcpu(kvm: Kvm) -> None:
    """Each vCPU of a VM moved into a VM of its own is a right restore."""
    vm = kvm.create_vm()
    for saved in [save(guest(vm, 3, index, seed=50 * index)) for index in range(2)]:
        run(restored(kvm.create_vm(), saved))
    assert pairs(kvm) == {(2, 0): (1, 0), (3, 0): (1, 1)}
    assert lost(kvm) == set()


@pytest.mark.parametrize("unit", [8, 4])
def test_bytes_in_another_order(kvm: Kvm, unit: int) -> None:
    """A restore with all bytes swapped is recognised, and each register says so."""
    saved = save(guest(kvm.create_vm(), 3))
    swapped = {
        name: b"".join(value[at : at + unit][::-1] for at in range(0, len(value), unit))
        for name, value in saved.items()
        if name in X or name.startswith(("z", "p"))
    }
    target = vcpu_of(kvm.create_vm())
    restore(target, saved | swapped, in_order(saved))
    found = causes(kvm)
    assert {*X, "z0", "zt0"} - {name for name in X if swapped[name] == saved[name]} <= found["byte-order"]
    assert lost(kvm) == differing(target, saved)


def test_values_shifted_by_one_register(kvm: Kvm) -> None:
    """x0 has the value of x1, and so on: the report names the register that the value was saved for."""
    saved = save(guest(kvm.create_vm(), 3))
    put(vcpu_of(kvm.create_vm()), saved, {f"x{number}": saved[f"x{number + 1}"] for number in range(30)})
    assert causes(kvm) == {"shifted": X - {"x30"}}
    assert "x0 that of x1" in str(kvm.verdict())


def test_file_cut_short(kvm: Kvm) -> None:
    """The first registers of the save only, with their values: the guest is entered without the others."""
    source = guest(kvm.create_vm(), 3)
    saved = save(source)
    target = vcpu_of(kvm.create_vm())
    put(target, dict(list(saved.items())[:40]))
    missing = differing(target, saved)
    run(target)
    assert lost(kvm) == missing
    assert "za.h[0]" in lost(kvm)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_restore_that_was_dropped_is_not_judged(kvm: Kvm, share: float) -> None:
    """Half of a restore, then the VM is closed without a run: nothing is lost."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    restore(target, saved, in_order(saved)[: int(share * len(saved))])
    kvm.close(target.fd)
    verdict = kvm.verdict()
    assert verdict.findings == ()
    assert [(vcpu.vm, vcpu.is_restore) for vcpu in verdict.not_judged] == [(2, True), (1, False)]


def test_edits_after_the_restore_are_counted(kvm: Kvm) -> None:
    """A clone gets an x0 and an MPIDR of its own, a debugger moves pc: no finding."""
    saved = save(guest(kvm.create_vm(), 3))
    target = restored(kvm.create_vm(), saved)
    target["x0"], target["mpidr_el1"], target["pc"] = 99, 0x80000003, 0x40080000
    run(target)
    verdict = kvm.verdict()
    assert verdict.findings == ()
    assert [pair.edits for pair in verdict.judged] == [3]


def test_edit_of_the_saved_data_is_a_change(kvm: Kvm) -> None:
    """Written once, with another value: events cannot tell a mistake from an edit; both values are shown."""
    saved = save(guest(kvm.create_vm(), 3))
    put(vcpu_of(kvm.create_vm()), saved, {"x0": bytes([99] * 8)})
    (finding,) = kvm.findings()
    assert (finding.cause, finding.severity) == ("changed", Severity.CHANGED)
    (loss,) = finding.losses
    assert (loss.name, loss.saved, loss.written, loss.left) == ("x0", saved["x0"], bytes([99] * 8), bytes([99] * 8))


def test_standby_is_judged_by_the_last_checkpoint(kvm: Kvm) -> None:
    """Every checkpoint is written over one vCPU: with a register forgotten in the last, only that one is reported."""
    source, standby = guest(kvm.create_vm(), 3), vcpu_of(kvm.create_vm())
    for seed in range(3):
        fill(source, seed)
        saved = save(source)
        put(standby, {name: value for name, value in saved.items() if seed < 2 or name != "x7"})
        run(source)
    assert lost(kvm) == {"x7"}
    assert causes(kvm).keys() == {"older-save"}


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_any_checkpoint_can_be_restored(kvm: Kvm, wanted: int) -> None:
    """The one that was restored is recognised also where it is not the newest, and with a register missing."""
    source = guest(kvm.create_vm(), 3)
    saves = []
    for seed in range(3):
        fill(source, seed)
        saves.append(save(source))
        run(source)
    target = vcpu_of(kvm.create_vm())
    put(target, {name: value for name, value in saves[wanted].items() if name != "z5"})
    run(target)
    assert lost(kvm) == {"z5"}


def test_stale_family(kvm: Kvm) -> None:
    """Vectors of the checkpoint before, all else of the last: the vectors are of an older save."""
    source = guest(kvm.create_vm(), 3)
    old = save(source)
    run(source)
    fill(source, 9)
    saved = save(source)
    stale = {name: old[name] for name in saved if name.startswith(("z", "p")) and name in old and "_" not in name}
    del stale["pc"]
    target = vcpu_of(kvm.create_vm())
    put(target, saved, stale)
    run(target)
    assert causes(kvm)["older-save"] == {name for name in stale if stale[name] != saved[name]}


@pytest.mark.parametrize("again", [False, True])
def test_rollback(kvm: Kvm, again: bool) -> None:
    """In place, with INIT again or without: right as a whole, and what it forgets is reported."""
    vcpu = guest(kvm.create_vm(), 2)
    saved = save(vcpu)
    run(vcpu)
    fill(vcpu, 9)
    run(vcpu)
    if again:
        vcpu.init({"sve", "sme"})
    put(vcpu, saved)
    run(vcpu)
    assert lost(kvm) <= {"id_aa64pfr0_el1", "id_pfr1_el1"}  # frozen by the first run
    fill(vcpu, 17)
    run(vcpu)
    put(vcpu, {name: value for name, value in saved.items() if not name.startswith("za")})
    assert {name for name in saved if name.startswith("za")} <= lost(kvm)


def test_init_after_the_restore(kvm: Kvm) -> None:
    """The vCPU's thread calls KVM_ARM_VCPU_INIT once more: all that was restored is gone."""
    saved = save(guest(kvm.create_vm(), 3))
    target = restored(kvm.create_vm(), saved)
    target.init({"sve", "sme"})
    missing = differing(target, saved)
    run(target)
    assert causes(kvm).keys() == {"init"}
    assert lost(kvm) == missing


def test_kick_in_the_middle_of_a_restore(kvm: Kvm) -> None:
    """KVM_RUN with immediate_exit completes pending work; the restore goes on."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    order = in_order(saved)
    restore(target, saved, order[:100])
    run(target, immediate_exit=True)
    restore(target, saved, order[100:])
    run(target)
    assert lost(kvm) <= {"id_aa64pfr0_el1", "id_pfr1_el1"}


def test_a_kick_before_the_guest_is_entered_loses_nothing() -> None:
    """KVM_RUN with immediate_exit passes registers through the CPU, which has no bits of AFSR0_EL1."""
    with opened("neoverse-v1") as kvm:
        saved = save(guest(kvm.create_vm()))
        target = vcpu_of(kvm.create_vm())
        restore(target, saved, in_order(saved))
        assert saved["afsr0_el1"] != bytes(8)
        run(target, immediate_exit=True)
        assert target["afsr0_el1"] == bytes(8)
        run(target)
        assert lost(kvm) <= {"id_aa64pfr0_el1", "id_pfr1_el1"}
        assert kvm.verdict().judged


def test_a_look_after_a_kick_loses_nothing() -> None:
    """A VMM that kicks, reads all registers and writes them again writes what the CPU left of them."""
    with opened("neoverse-v1") as kvm:
        saved = save(guest(kvm.create_vm()))
        target = vcpu_of(kvm.create_vm())
        restore(target, saved, in_order(saved))
        run(target, immediate_exit=True)
        seen = save(target)
        restore(target, seen, in_order(seen))
        run(target)
        assert lost(kvm) <= {"id_aa64pfr0_el1", "id_pfr1_el1"}


def test_a_write_after_a_kick_is_an_edit() -> None:
    """What the VMM writes after KVM_RUN with immediate_exit counts, unless it is what the CPU left of the value."""
    with opened("neoverse-v1") as kvm:
        saved = save(guest(kvm.create_vm()))
        target = vcpu_of(kvm.create_vm())
        restore(target, saved, in_order(saved))
        run(target, immediate_exit=True)
        target["csselr_el1"] = bytes([2, *bytes(7)])
        run(target)
        assert "csselr_el1" in kvm.verdict().judged[0].edited


def test_vmm_that_gives_up(kvm: Kvm) -> None:
    """The first refused write ends the restore: that register is reported, the others in a line."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    names = [name for name in saved if name != "sve_vls"]
    restore(target, saved, names[: names.index("sme_vls") + 1])
    kvm.close(target.fd)
    (finding,) = kvm.findings()
    assert (finding.kind, finding.registers) == ("vls-after-finalize", ("sme_vls",))
    assert "gave up here" in str(finding)


def test_restore_from_nowhere_is_not_judged(kvm: Kvm) -> None:
    """Everything is set, and no save is known: not clean, not lost, and a strict verdict fails."""
    saved = save(guest(kvm.create_vm(), 3))
    with opened() as another:
        target = vcpu_of(another.create_vm(), final=False)
        restore(target, saved, VLS)
        target.finalize()
        put(target, saved)
        run(target)
        verdict = another.verdict()
    assert verdict.findings == ()
    assert verdict.word == "nothing judged"
    (vcpu,) = verdict.unseen
    assert "from a save that was not seen" in vcpu.why
    assert "nothing was judged" in str(verdict)


def test_fuzzer_is_not_judged(kvm: Kvm) -> None:
    """Registers written over and over in no order, SVCR among them, some refused: no restore loses here."""
    target = vcpu_of(kvm.create_vm())
    names = [name for name in target.names() if not name.startswith(("za", "id_"))]
    for step in range(300):
        name = names[step * 7919 % len(names)] if step % 10 else "svcr"
        value = (step % 4) if name == "svcr" else step * 0x1234567
        size_bytes = len(target[name])
        restore(target, {name: (value % (1 << 8 * size_bytes)).to_bytes(size_bytes, "little")})
    run(target)
    assert kvm.findings() == []
    assert "in no order" in str(kvm.verdict())


# --- declared


def test_declared_pair_is_compared_whatever_was_written(kvm: Kvm) -> None:
    """Seven registers are too few to be taken for a restore; declared, all that differs is lost."""
    source, target = guest(kvm.create_vm(), 3), vcpu_of(kvm.create_vm())
    label = kvm.saved(source)
    put(target, {f"x{number}": source[f"x{number}"] for number in range(7)})
    kvm.restored(target, label)
    assert {"x7", "z0", "svcr"} <= lost(kvm)
    assert [pair.declared for pair in kvm.verdict().judged] == [True]


def test_unknown_label_is_not_judged(kvm: Kvm) -> None:
    """The VMM declares a save that it never declared: not guessed, and a strict verdict fails."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    put(target, saved)
    kvm.restored(target, 77)
    verdict = kvm.verdict()
    assert verdict.judged == ()
    assert "save 77, which was not declared" in verdict.unseen[0].why


@pytest.mark.parametrize(("source", "resolved"), [(1, True), (9, False)])
def test_pair_of_the_command_line(source: int, resolved: bool) -> None:
    """VM 2 from VM 1; a source that saved nothing is named as not judged."""
    with opened() as kvm:
        checker = OrderChecker(pairs={(2, None): (source, None)})
        kvm.log.watchers.append(checker.watch)
        saved = save(guest(kvm.create_vm(), 3))
        target = vcpu_of(kvm.create_vm())
        put(target, {f"x{number}": saved[f"x{number}"] for number in range(9)})
        run(target)
        verdict = checker.verdict()
        assert ("z0" in {name for finding in verdict.findings for name in finding.registers}) == resolved
        assert bool(verdict.unseen) != resolved


# --- asking, and what is not a source


def test_asking_changes_nothing(kvm: Kvm) -> None:
    """A verdict in the middle is the verdict on what was done so far, and the last one is as without it."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    order = in_order(saved)
    for at in range(0, len(order), 60):
        restore(target, saved, order[at : at + 60])
        kvm.verdict()
    save(target)
    assert [kvm.verdict().as_dict()["findings"] for _ in range(2)] == [[], []]
    run(target)
    assert lost(kvm) == set()


def test_look_at_a_bad_restore_is_not_a_source(kvm: Kvm) -> None:
    """Two restores lack x19; the VMM reads the first one back: the second is compared with the source all the same."""
    saved = save(guest(kvm.create_vm(), 3))
    for _ in range(2):
        target = vcpu_of(kvm.create_vm())
        put(target, {name: value for name, value in saved.items() if name != "x19"})
        save(target)
    assert [(pair.vm, pair.source_vm) for pair in kvm.verdict().judged] == [(2, 1), (3, 1)]
    assert [finding.registers for finding in kvm.findings()] == [("x19",), ("x19",)]


def test_all_registers_written_back_are_not_a_restore(kvm: Kvm) -> None:
    """A debugger's stub reads all, moves pc and writes all back: an edit; a restore before it is still judged."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    put(target, {name: value for name, value in saved.items() if name != "x19"})
    seen = save(target) | {"pc": bytes([8] * 8)}
    put(target, seen)
    run(target)
    assert lost(kvm) == {"x19"}
    assert [pair.edited for pair in kvm.verdict().judged] == [("pc",)]


def test_a_vm_that_is_set_up_anew_was_reset(kvm: Kvm) -> None:
    """A restore is cancelled: both vCPUs are INIT again, one boots, the other is off; nothing is lost."""
    saves, vcpus = two(kvm)
    for vcpu, saved in zip(vcpus, saves, strict=True):
        put(vcpu, saved)
    for vcpu in vcpus:
        vcpu.init({"sve", "sme"})
    vcpus[0]["pc"], vcpus[0]["x0"] = 0x40080000, 0x48000000
    for vcpu in vcpus:
        run(vcpu)
    assert lost(kvm) == set()


def test_probe_of_a_few_registers_does_not_excuse(kvm: Kvm) -> None:
    """Eight reads are not a look at the whole state; a destroyed value stays lost."""
    target = vcpu_of(kvm.create_vm())
    put(target, {f"z{number}": bytes([5] * 256) for number in range(32)})
    target["svcr"] = 1
    save(target, [f"x{number}" for number in range(8)])
    run(target)
    assert lost(kvm) == {f"z{number}" for number in range(32)}


def test_a_rollback_with_shifted_values_is_not_judged() -> None:
    """Each register gets the next one's value; what the host fixes is refused, and has its value: it is not lost."""
    with opened("neoverse-n2") as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init(set())
        for name in (*(f"x{number}" for number in range(31)), *(f"v{number}" for number in range(32))):
            vcpu[name] = 7
        for place, name in enumerate(SYSTEM):
            vcpu[name] = 0x1000 * (place + 1)
        saved = save(vcpu)
        run(vcpu)
        vcpu.init(set())
        names = in_order(saved)
        fitting = {}
        for name, following in pairwise(names):
            fitting[name] = saved[following][: len(saved[name])].ljust(len(saved[name]), b"\0")
        restore(vcpu, fitting)
        run(vcpu)
        verdict = kvm.verdict()
        assert lost(kvm) <= {"id_aa64pfr0_el1", "id_pfr1_el1"}  # frozen by the first run
        assert [(each.vcpu, each.is_restore) for each in verdict.not_judged] == [(0, False), (0, True)]
