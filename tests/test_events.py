# SPDX-License-Identifier: MIT
"""Every ioctl leaves an event that tells what it did, refused and destroyed."""

from __future__ import annotations

import errno

import pytest
from vmms import guest, opened, vcpu_of

import kvmabi
from kvmabi import KvmError, regid, uapi
from kvmabi.events import Event


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
    """errno, rule and way out; the register and the mode it happened in."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        with pytest.raises(KvmError) as refused:
            vcpu["za.h[3]"] = 0
        event = kvm.log.events[-1]
        assert (event.errno, event.reason, event.remedy) == (
            errno.EBUSY,
            refused.value.reason,
            refused.value.remedy,
        )
        assert event.register == regid.parse("za.h[3]")
        assert str(event.mode) == refused.value.mode == "SVCR.SM=0 SVCR.ZA=0"


def test_svcr_write_names_the_events_it_destroyed() -> None:
    """Each register's value before and after, and the event that had set it."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["z5"] = b"\7" * 256
        set_by = kvm.log.count
        vcpu["z6"] = bytes(256)  # zero already: nothing to lose
        vcpu["svcr"] = 1
        event = kvm.log.events[-1]
        lost = {regid.name_of(lost.id): lost for lost in event.effects}
        assert lost.keys() == {"z5", "fpsr"}
        assert lost["z5"].set_by == set_by
        assert (lost["z5"].before[:32], lost["z5"].after) == (b"\7" * 32, bytes(256))
        assert lost["fpsr"].set_by is None
        assert (event.svcr, event.mode.svcr) == (1, 0)


def test_value_that_init_gave_has_no_setter() -> None:
    """INIT forgets who set what."""
    with opened() as kvm:
        vcpu = guest(kvm.create_vm(), 1)
        vcpu.init({"sve", "sme"})
        vcpu["svcr"] = 1
        assert all(lost.set_by is None for lost in kvm.log.events[-1].effects)


def test_unknown_ioctl_has_an_event() -> None:
    with opened() as kvm, pytest.raises(KvmError, match="EINVAL"):
        kvm.ioctl(kvm.fd, 0xAEFF)
    assert kvm.log.events[-1].what == "ioctl 0xaeff"


def test_log_keeps_the_last_events() -> None:
    """However long a VMM runs, the log is no longer than asked for; the count goes on."""
    with kvmabi.open(kept_events=10) as kvm:
        for _ in range(25):
            kvm.ioctl(kvm.fd, uapi.KVM_GET_API_VERSION)
        assert [event.number for event in kvm.log.events] == list(range(16, 26))
        assert kvm.log.count == 25


def test_watchers_see_state_that_the_log_does_not_keep() -> None:
    """State is for watchers: INIT, the first read after a change, the run, the close."""
    seen: list[tuple[str, bool]] = []

    def watch(event: Event) -> None:
        if event.vcpu is not None:
            seen.append((event.what, event.state is not None))

    with opened() as kvm:
        kvm.log.watchers.append(watch)
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["x0"] = 1
        vcpu.read("x0")
        vcpu.read("x0")
        with pytest.raises(KvmError, match="EINTR"):
            vcpu.run()
        vcpu.read("x0")
        kvm.close(vcpu.fd)
        assert all(event.state is None for event in kvm.log.events)
    assert seen == [
        ("KVM_ARM_VCPU_INIT", True),
        ("KVM_ARM_VCPU_FINALIZE", False),
        ("KVM_SET_ONE_REG", False),
        ("KVM_GET_ONE_REG", True),
        ("KVM_GET_ONE_REG", False),
        ("KVM_RUN", True),
        ("KVM_GET_ONE_REG", True),
        ("close", True),
    ]
