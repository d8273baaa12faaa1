# SPDX-License-Identifier: MIT
"""The order checker: it reports exactly what a VMM lost, whatever the VMM's way to save and restore."""

from __future__ import annotations

import pytest
from vmms import (
    HOSTS,
    VLS,
    differing,
    fill,
    guest,
    host,
    in_order,
    lost,
    opened,
    registers_lost,
    restore,
    restored,
    run,
    save,
    vcpu_of,
)

import kvmabi
from kvmabi import Kvm, KvmError
from kvmabi.profiles import kernel_names

MODES = [(name, svcr) for name, of in HOSTS.items() for svcr in ((0, 1, 2, 3) if of.sme_vector_bits else (0,))]
Z, P, V = ({f"{bank}{n}" for n in range(count)} for bank, count in (("z", 32), ("p", 16), ("v", 32)))
STREAMING = {*Z, *P, "ffr", "fpsr"}
ZA = {*(f"za.h[{n}]" for n in range(128)), "zt0"}


# --- right VMMs


@pytest.mark.slow
@pytest.mark.parametrize(("of", "svcr"), MODES)
def test_right_restore_is_clean(of: str, svcr: int) -> None:
    """Vector lengths, FINALIZE, SVCR, all other registers: nothing to report, on any host, in any mode."""
    with opened(HOSTS[of]) as kvm:
        saved = save(guest(kvm.create_vm(), svcr))
        assert differing(restored(kvm.create_vm(), saved), saved) == set()
        assert registers_lost(kvm) == {}


@pytest.mark.parametrize("kernel", kernel_names())
def test_right_restore_is_clean_under_every_kernel(kernel: str) -> None:
    """Registers that read differently from what was written, and free-running timers, are not losses."""
    with kvmabi.open(host=HOSTS["sve"], kernel=kernel) as kvm:
        saved = save(guest(kvm.create_vm()))
        run(restored(kvm.create_vm(), saved))
        assert registers_lost(kvm) == {}


def test_restore_into_another_vcpu_of_the_vm_is_clean(kvm: Kvm) -> None:
    """MPIDR differs after INIT, and is restored like any other register."""
    vm = kvm.create_vm()
    saved = save(guest(vm, 3))
    restored(vm, saved, 1)
    assert registers_lost(kvm) == {}


def test_restore_after_init_again_is_clean(kvm: Kvm) -> None:
    """INIT preserves the vector lengths of a finalised vCPU; the rest is restored, SVCR first."""
    vcpu = guest(kvm.create_vm(), 3)
    saved = save(vcpu)
    vcpu.init({"sve", "sme"})
    restore(vcpu, saved, in_order(saved))
    assert differing(vcpu, saved) == set()
    assert registers_lost(kvm) == {}


@pytest.mark.slow
def test_several_vcpus_are_distinguished(kvm: Kvm) -> None:
    """Each vCPU is compared with its own save, whatever order they are restored in."""
    vm, target = kvm.create_vm(), kvm.create_vm()
    saves = [save(guest(vm, svcr, index, seed=40 * index)) for index, svcr in enumerate((3, 1, 0, 2))]
    for index in (2, 0, 3, 1):
        restored(target, saves[index], index)
    assert registers_lost(kvm) == {}


@pytest.mark.slow
def test_one_bad_vcpu_of_several_is_the_one_reported(kvm: Kvm) -> None:
    vm, target = kvm.create_vm(), kvm.create_vm()
    saves = [save(guest(vm, 3, index, seed=40 * index)) for index in range(3)]
    restored(target, saves[0], 0)
    bad = vcpu_of(target, 1)
    restore(bad, saves[1])
    restored(target, saves[2], 2)
    assert {(finding.vm, finding.vcpu) for finding in kvm.findings()} == {(2, 1)}
    assert lost(kvm) == differing(bad, saves[1])


@pytest.mark.slow
def test_save_restore_run_again_and_again(kvm: Kvm) -> None:
    """A chain of migrations, with runs in between and the ID registers that the first run changes."""
    vcpu = guest(kvm.create_vm(), 3)
    run(vcpu)
    for round in range(5):
        saved = save(vcpu)
        vcpu = restored(kvm.create_vm(), saved)
        run(vcpu)
        fill(vcpu, 10 * round)
        run(vcpu)
    assert registers_lost(kvm) == {}


@pytest.mark.slow
def test_first_run_is_not_held_against_the_restore(kvm: Kvm) -> None:
    """The first run of a VM without a vGIC changes ID registers, after the verdict on what was restored."""
    saved = save(guest(kvm.create_vm(), 3))
    run(restored(kvm.create_vm(), saved))
    assert registers_lost(kvm) == {}


@pytest.mark.slow
def test_setup_in_any_order_is_not_a_restore(kvm: Kvm) -> None:
    """Guests set up alike, SVCR first, each saved: none is taken for a restored one."""
    for seed in range(4):
        vcpu = guest(kvm.create_vm(), 3, seed=seed)
        vcpu["x0"] = 7
        save(vcpu)
        run(vcpu)
    assert registers_lost(kvm) == {}


def test_first_pass_healed_by_a_second(kvm: Kvm) -> None:
    """The list restored twice loses nothing; only the vector lengths came too late."""
    saved = save(guest(kvm.create_vm(), 3))
    vcpu = vcpu_of(kvm.create_vm())
    restore(vcpu, saved)
    restore(vcpu, saved)
    assert differing(vcpu, saved) == set()
    assert registers_lost(kvm) == {"vls-after-finalize": set(VLS)}


def test_svcr_first_and_then_the_list(kvm: Kvm) -> None:
    """A second write of SVCR, in list order, changes nothing."""
    saved = save(guest(kvm.create_vm(), 3))
    vcpu = vcpu_of(kvm.create_vm())
    restore(vcpu, saved, ["svcr", *saved])
    assert registers_lost(kvm) == {"vls-after-finalize": set(VLS)}


@pytest.mark.parametrize("between", ["nothing", "run", "another vCPU"])
def test_save_in_two_phases_is_one_save(kvm: Kvm, between: str) -> None:
    """Half of the registers now, half later, the guest unchanged: what the first half lost is reported, too."""
    vm = kvm.create_vm()
    vcpu, other = guest(vm, 3), guest(vm, 0, 1)
    run(vcpu)
    names = vcpu.names()
    saved = save(vcpu, names[:150])
    if between == "run":
        run(vcpu)
    elif between == "another vCPU":
        save(other)
    saved |= save(vcpu, names[150:])
    bad = vcpu_of(kvm.create_vm())
    restore(bad, saved)
    assert lost(kvm) == differing(bad, saved)
    assert "not-saved" not in registers_lost(kvm)


@pytest.mark.slow
def test_precopy_is_judged_by_the_last_round(kvm: Kvm) -> None:
    """Saves of a guest that goes on: the restore is compared with the save it came from."""
    vcpu = guest(kvm.create_vm(), 3)
    for seed in range(3):
        fill(vcpu, seed)
        saved = save(vcpu)
        run(vcpu)
    restored(kvm.create_vm(), saved)
    assert registers_lost(kvm) == {}


# --- VMMs as there are


def test_scratch_vm_of_id_registers_has_no_finding(kvm: Kvm) -> None:
    """QEMU: a scratch vCPU's ID registers are read, then every vCPU's system registers, written back before it runs."""
    vm = kvm.create_vm()
    scratch = vcpu_of(vm)
    for name in scratch.names():
        if name.startswith("id_"):
            assert scratch[name] is not None
    kvm.close(scratch.fd)
    vm.close()
    vm = kvm.create_vm()
    for index in range(3):
        vcpu = vcpu_of(vm, index, final=False)
        for name in VLS:
            vcpu[name] = 1 if name == "sve_vls" else 2
        vcpu.finalize()
        listed = save(vcpu, [name for name in vcpu.names() if name not in {*Z, *P, "ffr", *VLS}])
        vcpu["pc"] = 0x40000000 if index == 0 else 0
        restore(vcpu, listed, [name for name in listed if name not in ("pc", "pstate")])
    for vcpu_number in range(2):
        with pytest.raises(KvmError, match="EEXIST"):
            vm.create_vcpu(vcpu_number)
    assert registers_lost(kvm) == {}


def test_list_read_when_svcr_was_0_never_saves_za(kvm: Kvm) -> None:
    """QEMU: the list of the start has no ZA; all system registers first, so that nothing else is lost."""
    vcpu = vcpu_of(kvm.create_vm())
    listed = vcpu.names()
    vcpu["svcr"] = 3
    fill(vcpu)
    saved = save(vcpu, listed)
    system = [name for name in listed if name not in {*Z, *P, *VLS, "ffr", "fpsr", "fpcr"}]
    target = vcpu_of(kvm.create_vm())
    restore(target, saved, [*system, *(name for name in listed if name not in (*system, *VLS))])
    assert registers_lost(kvm) == {"not-saved": ZA}


def test_vector_cut_to_the_other_length_is_reported(kvm: Kvm) -> None:
    """QEMU: Z read at SM = 1 is stored at SVE's length, so most of the streaming vector is zero afterwards."""
    saved = save(guest(kvm.create_vm(), 1))
    cut = saved | {name: saved[name][:32].ljust(256, b"\0") for name in Z}
    target = vcpu_of(kvm.create_vm())
    restore(target, cut, in_order(cut))
    assert registers_lost(kvm) == {"restore-differs": Z}


def test_restore_in_list_order(kvm: Kvm) -> None:
    """Firecracker: SVE_VLS, FINALIZE, the list; errors ignored here to see all of them."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm(), final=False)
    target["sve_vls"] = saved["sve_vls"]
    target.finalize()
    restore(target, saved, [name for name in saved if name != "sve_vls"])
    assert registers_lost(kvm) == {
        "vls-after-finalize": {"sme_vls"},
        "destroyed-by-svcr": STREAMING,
        "za-disabled": ZA,
    }


@pytest.mark.slow
@pytest.mark.parametrize("svcr", [1, 3])
def test_sme_only_guest_that_was_never_finalised(svcr: int) -> None:
    """Firecracker finalises for SVE only: every vector register is refused, and the report says why."""
    with opened(HOSTS["sme"]) as kvm:
        saved = save(guest(kvm.create_vm(), svcr))
        target = vcpu_of(kvm.create_vm(), final=False)
        restore(target, saved, in_order(saved))
        assert registers_lost(kvm)["restore-differs"] == differing(target, saved) >= {*Z, *P, "ffr"}
        assert "refused with EPERM" in str(kvm.findings()[-1])


def test_system_registers_last(kvm: Kvm) -> None:
    """cloud-hypervisor: core, vectors, the system registers last: Z is wiped, ZA refused."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    restore(target, saved, [name for name in saved if name not in (*VLS, "svcr")] + ["svcr"])
    assert registers_lost(kvm) == {
        "destroyed-by-svcr": STREAMING,
        "za-disabled": ZA,
    }


def test_registers_dropped_without_a_word(kvm: Kvm) -> None:
    """crosvm: core and system registers only, and only these are read: the rest was not saved."""
    source = guest(kvm.create_vm(), 3)
    saved = save(source, [name for name in source.names() if name not in {*Z, *P, *ZA, *VLS, "ffr"}])
    target = vcpu_of(kvm.create_vm())
    restore(target, saved, in_order(saved))
    assert registers_lost(kvm) == {"not-saved": {*Z, *P, *ZA, "ffr"}}


def test_vectors_dropped_of_an_otherwise_idle_guest() -> None:
    """Even if every value written is the current one, dropped registers are reported."""
    with opened(HOSTS["sve"]) as kvm:
        source = vcpu_of(kvm.create_vm())
        for name in Z:
            source[name] = b"\5" * 256
        saved = save(source)
        restore(vcpu_of(kvm.create_vm()), saved, [name for name in saved if name not in {*Z, *P, "ffr", "sve_vls"}])
        assert registers_lost(kvm) == {"restore-differs": Z}


def test_vcpu_set_up_as_kvmtool_does(kvm: Kvm) -> None:
    """kvmtool: the lengths are read, cut and written, the vCPU finalised and run; nothing is ever saved."""
    vm = kvm.create_vm()
    for index in range(4):
        vcpu = vcpu_of(vm, index, final=False)
        for name in VLS:
            vcpu[name] = vcpu.read(name) & 0b11
        vcpu.finalize()
        vcpu["x0"], vcpu["pc"] = 0x48000000, 0x80000
        run(vcpu)
    assert registers_lost(kvm) == {}


# --- what else can go wrong


def test_mode_never_restored(kvm: Kvm) -> None:
    """SVCR is left out: the mode, and what only exists in it."""
    saved = save(guest(kvm.create_vm(), 2))
    target = vcpu_of(kvm.create_vm())
    restore(target, saved, [name for name in saved if name not in (*VLS, "svcr")])
    assert registers_lost(kvm) == {
        "mode-not-restored": {"svcr"},
        "za-disabled": ZA,
    }


def test_shorter_vector_length_cuts_vectors_off(kvm: Kvm) -> None:
    """A target with a shorter streaming length keeps the low bytes of Z and P and refuses the rows beyond."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm(), final=False)
    target["sme_vls"] = 0b0010
    target["sve_vls"] = saved["sve_vls"]
    target.finalize()
    restore(target, saved, in_order(saved))
    assert lost(kvm) == differing(target, saved) >= {*Z, *P, "ffr", "sme_vls", "za.h[127]"}
    text = str(kvm.verdict())
    assert "32 of 128 bytes written" in text
    assert "4 of 16 bytes written" in text
    assert "refused with EINVAL" in text


def test_partial_write_is_a_loss(kvm: Kvm) -> None:
    """A ZA row that was only partly readable is refused, and changed nevertheless."""
    source = guest(kvm.create_vm(), 3)
    saved = save(source)
    target = vcpu_of(kvm.create_vm())
    restore(target, saved, in_order(saved))
    with pytest.raises(KvmError, match="EFAULT"):
        kvm.ioctl(target.fd, *_set_from_nowhere("za.h[5]"))
    assert registers_lost(kvm) == {"restore-differs": {"za.h[5]"}}


def test_values_destroyed_without_any_save(kvm: Kvm) -> None:
    """A restore in another process than the save: the SVCR write alone shows what it destroyed."""
    target = vcpu_of(kvm.create_vm())
    fill(target)
    target["svcr"] = 1
    assert registers_lost(kvm) == {"destroyed-by-svcr": STREAMING}


def test_event_numbers_lead_to_the_reason(kvm: Kvm) -> None:
    """A destroyed value names the event that set it and the SVCR write that destroyed it."""
    saved = save(guest(kvm.create_vm(), 1))
    target = vcpu_of(kvm.create_vm())
    restore(target, saved, [*(name for name in saved if name not in (*VLS, "svcr")), "svcr"])
    events = {event.number: event for event in kvm.log.events}
    (finding,) = kvm.findings()
    for loss in finding.losses:
        set_by, gone = (events[number] for number in loss.events)
        assert (set_by.what, set_by.register) == ("KVM_SET_ONE_REG", loss.id)
        assert gone.svcr == 1 != gone.mode.svcr
    assert finding.lines == (str(events[finding.losses[0].events[0]]), str(gone))


def test_restored_twice_from_one_save_and_read_back(kvm: Kvm) -> None:
    """A faulty restore that the VMM reads back does not become the measure of the next one."""
    saved = save(guest(kvm.create_vm(), 2))
    for _ in range(2):
        target = vcpu_of(kvm.create_vm())
        restore(target, saved, [name for name in saved if name not in VLS])
        save(target)
    losses = [finding for finding in kvm.findings() if finding.kind == "za-disabled"]
    assert [(finding.vm, set(finding.registers)) for finding in losses] == [(2, ZA), (3, ZA)]
    assert {pair.source_vm for pair in kvm.verdict().judged} == {1}


def test_findings_are_issued_once_at_close(kvm: Kvm) -> None:
    """A verdict is not repeated, neither by another query nor by a close."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    restore(target, saved)
    before = len(kvm.findings())
    assert len(kvm.findings()) == before
    kvm.close(target.fd)
    assert len(kvm.findings()) == before > 0


def test_read_between_restore_and_run_does_not_hide_the_verdict(kvm: Kvm) -> None:
    """The verdict is issued at the run, before the guest or the VMM changes anything more."""
    saved = save(guest(kvm.create_vm(), 3))
    target = vcpu_of(kvm.create_vm())
    restore(target, saved)
    missing = differing(target, saved)
    run(target)
    fill(target, 9)
    assert lost(kvm) == missing


def test_shorter_host_sets_do_not_matter() -> None:
    """SVE and SME sets that do not overlap, the longest that there are."""
    with opened(host(sve=[128], sme=[2048])) as kvm:
        saved = save(guest(kvm.create_vm(), 3))
        bad = vcpu_of(kvm.create_vm())
        restore(bad, saved)
        assert lost(kvm) == differing(bad, saved)
        assert len(registers_lost(kvm)["za-disabled"]) == 257


def _set_from_nowhere(name: str) -> tuple[int, object]:
    """KVM_SET_ONE_REG with an unmapped address."""
    from kvmabi import regid, uapi

    return uapi.KVM_SET_ONE_REG, uapi.ffi.new("struct kvm_one_reg *", {"id": regid.parse(name), "addr": 16})
