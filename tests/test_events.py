# SPDX-License-Identifier: MIT
"""Every ioctl leaves an event with what it did, refused and destroyed."""

from __future__ import annotations

import errno
import tracemalloc

import pytest
from vmms import opened, vcpu_of

import kvmabi
from kvmabi import KvmError, regid, uapi
from kvmabi.events import Event, Kind, Origin


def test_numbers_count_every_ioctl() -> None:
    """From 1 without gaps, over all VMs and vCPUs, refused ones included."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        with pytest.raises(KvmError):
            vcpu["za.h[0]"] = 0
        vcpu_of(kvm.create_vm(), 3)
        assert [event.number for event in kvm.log.events] == list(range(1, kvm.log.count + 1))
        names = [event.what for event in kvm.log.events]
        life = ["KVM_CREATE_VM", "KVM_CREATE_VCPU", "KVM_ARM_VCPU_INIT", "KVM_ARM_VCPU_FINALIZE"]
        assert names == [*life, "KVM_SET_ONE_REG", *life]
        assert {(event.vm, event.vcpu) for event in kvm.log.events} == {
            (None, None),
            (1, None),
            (1, 0),
            (2, None),
            (2, 3),
        }


def test_refusal_explains_itself() -> None:
    """errno, rule and hint; the register, and the mode at the time."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        with pytest.raises(KvmError) as refused:
            vcpu["za.h[3]"] = 0
        event = kvm.log.events[-1]
        assert (event.errno, event.reason, event.hint) == (
            errno.EBUSY,
            refused.value.reason,
            refused.value.hint,
        )
        assert event.register == regid.parse("za.h[3]")
        assert str(event.mode) == refused.value.mode == "SVCR.SM=0 SVCR.ZA=0"


@pytest.mark.parametrize("while_watched", [True, False])
def test_effects_on_some_registers(while_watched: bool) -> None:
    """They are those of all effects that concern these registers, before and after the event is kept."""
    wanted = {regid.parse(name) for name in ("z5", "z6", "za.h[2]", "x0", "fpsr")}
    found = []
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["svcr"] = 2
        vcpu["z5"] = vcpu["z7"] = vcpu["za.h[2]"] = vcpu["za.h[9]"] = b"\7" * 256
        vcpu["fpsr"] = 1
        if while_watched:
            kvm.log.watchers.append(lambda event: found.extend(event.effects_on(wanted)))
        vcpu["svcr"] = 1
        event = kvm.log.events[-1]
        some = found if while_watched else list(event.effects_on(wanted))
        assert some == [lost for lost in event.effects if lost.id in wanted]
        assert {regid.name_of(lost.id) for lost in some} == {"z5", "za.h[2]", "fpsr"}


def test_svcr_write_reports_what_it_destroyed() -> None:
    """Each register's value before and after."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["z5"] = b"\7" * 256
        vcpu["z6"] = bytes(256)  # zero already: nothing to lose
        vcpu["svcr"] = 1
        event = kvm.log.events[-1]
        lost = {regid.name_of(lost.id): lost for lost in event.effects}
        assert lost.keys() == {"z5", "fpsr"}
        assert (lost["z5"].before[:32], lost["z5"].after) == (b"\7" * 32, bytes(256))
        assert (event.svcr, event.mode.svcr) == (1, 0)


def test_unknown_ioctl_has_an_event() -> None:
    with opened() as kvm, pytest.raises(KvmError, match="EINVAL"):
        kvm.ioctl(kvm.fd, 0xAEFF)
    assert kvm.log.events[-1].what == "ioctl 0xaeff"


def test_log_keeps_the_last_events() -> None:
    """However long a VMM runs, the log has at most the requested length; the count continues."""
    with kvmabi.open(kept_events=10) as kvm:
        for _ in range(25):
            kvm.ioctl(kvm.fd, uapi.KVM_GET_API_VERSION)
        assert [event.number for event in kvm.log.events] == list(range(16, 26))
        assert kvm.log.count == 25


def test_watchers_read_registers_that_the_log_does_not_keep() -> None:
    """``registers`` are the vCPU's while an event is handed to watchers; a stored event has none."""
    seen: list[tuple[Kind, str, bytes | None]] = []

    def watch(event: Event) -> None:
        if event.vcpu is not None:
            seen.append((event.kind, event.what, event.registers.get(regid.parse("x0"))))

    with opened() as kvm:
        kvm.log.watchers.append(watch)
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["x0"] = 1
        with pytest.raises(KvmError, match="EINTR"):
            vcpu.run()
        kvm.close(vcpu.fd)
        assert all(not event.registers for event in kvm.log.events)
    zero, one = bytes(8), (1).to_bytes(8, "little")
    assert seen == [
        (Kind.IOCTL, "KVM_ARM_VCPU_INIT", zero),
        (Kind.IOCTL, "KVM_ARM_VCPU_FINALIZE", zero),
        (Kind.IOCTL, "KVM_SET_ONE_REG", one),
        (Kind.RUN, "run", one),
        (Kind.IOCTL, "KVM_RUN", one),
        (Kind.CLOSED, "closed", one),
    ]


def test_run_is_reported_before_it_changes_registers() -> None:
    """A first run without a vGIC clears the GIC field of ID_AA64PFR0_EL1; the RUN event still shows it."""
    gic = 0xF << 24
    id = regid.parse("id_aa64pfr0_el1")
    shown: dict[Kind, int] = {}

    def watch(event: Event) -> None:
        if event.kind is Kind.RUN or event.what == "KVM_RUN":
            shown[event.kind] = int.from_bytes(event.registers[id], "little") & gic

    with opened("qemu-max") as kvm:
        kvm.log.watchers.append(watch)
        with pytest.raises(KvmError, match="EINTR"):
            vcpu_of(kvm.create_vm()).run()
    assert shown[Kind.RUN]
    assert not shown[Kind.IOCTL]


def test_other_kinds_take_no_number() -> None:
    """A close between two ioctls does not count: numbers are those of ioctls."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        before = kvm.log.count
        kvm.close(vcpu.fd)
        closed = kvm.log.events[-1]
        assert (closed.kind, closed.number, kvm.log.count) == (Kind.CLOSED, before, before)


def test_question_leaves_no_trace() -> None:
    """A query for findings changes neither the log nor later findings."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["z0"] = b"\1" * 256
        vcpu["svcr"] = 1
        before = kvm.log.count, len(kvm.log.events)
        findings = kvm.findings()
        assert findings
        assert kvm.findings() == findings
        assert (kvm.log.count, len(kvm.log.events)) == before


def test_kept_events_hold_their_effects_alone() -> None:
    """A write of SVCR that destroys one row of ZA is not kept with all of ZA, whether somebody watches or not."""
    with kvmabi.open(checked=False) as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        tracemalloc.start()
        try:
            for _ in range(20):
                vcpu["svcr"] = 2
                vcpu["za.h[0]"] = b"\1" * 256
                vcpu["svcr"] = 0
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert [len(event.effects) for event in list(kvm.log.events)[-3:]] == [0, 0, 1]
        assert held_bytes < 20 * 0x8000


def test_frames_that_every_program_starts_with() -> None:
    """They are left out of an origin, with the name of a function or, at the outer end, without."""
    origin = Origin()
    unnamed = "/lib/libc.so.6+0x2777f"
    origin.fill(
        1, 1, "vmm", lambda: ("save at vmm.c:3", unnamed, "main at vmm.c:9", unnamed, "_start+0x1 in vmm", unnamed)
    )
    assert origin.frames == ("save at vmm.c:3", unnamed, "main at vmm.c:9")
    origin.fill(1, 1, "vmm", lambda: (unnamed,))
    assert origin.frames == (unnamed,)
