# SPDX-License-Identifier: MIT
"""A guest on the ownership protocol of several kernels, seen through KVM_GET_ONE_REG after KVM_RUN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvmabi
from kvmabi.errors import KvmError, UsageError
from kvmabi.guests import Cpu, GuestError, Mmio, OnKernel, Preempt, SoftirqNeon
from kvmabi.guests.ownership import Ownership
from kvmabi.kvm import Vcpu

OLD, NEW = bytes([1]) * 32 + bytes(224), bytes([5]) * 32 + bytes(224)
LONGEST = 15


def vector_vcpu(kvm: kvmabi.Kvm) -> Vcpu:
    """A vCPU with SVE whose z3 is not zero."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init({"sve"})
    vcpu.finalize()
    vcpu["z3"] = OLD
    vcpu["zcr_el1"] = LONGEST
    return vcpu


def run(variant: str) -> tuple[bytes, bytes]:
    """What the guest's read of z3 sees on a kernel, and what userspace reads afterwards."""
    seen: list[bytes] = []

    def guest(cpu: Cpu) -> Iterator[object]:
        cpu.z[3] = NEW[:32]
        cpu.msr("zcr_el1", LONGEST)
        yield SoftirqNeon()
        seen.append(cpu.z[3])
        yield Mmio(0x9000000)

    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = vector_vcpu(kvm)
        vcpu.guest = OnKernel(guest, variant)
        vcpu.run()
        return seen[0], vcpu["z3"]


def test_a_present_kernel_keeps_what_the_guest_wrote() -> None:
    """The softirq after a change of vector length does no harm, to the guest nor to a VMM that reads the register."""
    assert run("v7.2") == (NEW[:32], NEW)


def test_a_historical_kernel_loses_it() -> None:
    """On 6.12 nothing is saved: guest and VMM read what was there before."""
    assert run("v6.12") == (OLD[:32], OLD)


def test_the_protocol_says_why() -> None:
    """A named kernel's violations are collected, not raised."""
    with kvmabi.open(host="sme-demo") as kvm:
        ownership = Ownership(kvm.vcpu_model(vector_vcpu(kvm).fd), "v6.12")
        ownership.enter()
        ownership.write(3, NEW)
        ownership.choose_length()
        ownership.disturb(SoftirqNeon())
        ownership.read(3)
        ownership.leave()
        assert any(text.startswith("O4") for text in ownership.broken)


STEPS = st.sampled_from(["write", "read", "length", Preempt(), SoftirqNeon()])


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.lists(STEPS, max_size=8))
def test_on_a_present_kernel_every_read_sees_the_last_write(script: list[object]) -> None:
    """Whatever the host does in between; O4 is asserted on every step."""
    seen, expected, value = [], [], OLD
    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = vector_vcpu(kvm)
        ownership = Ownership(kvm.vcpu_model(vcpu.fd))
        ownership.enter()
        for step in script:
            if step == "write":
                value = NEW
                ownership.write(3, NEW)
            elif step == "read":
                seen.append(ownership.read(3))
                expected.append(value)
            elif step == "length":
                ownership.choose_length()
            else:
                assert isinstance(step, Preempt | SoftirqNeon)
                ownership.disturb(step)
        ownership.leave()
        assert (seen, vcpu["z3"]) == (expected, value)


def test_a_guest_that_waits_on_another_kernel_keeps_its_registers() -> None:
    """Each KVM_RUN loads and puts the registers; what the VMM writes in between is the guest's."""

    def guest(cpu: Cpu) -> Iterator[object]:
        cpu.z[3] = NEW[:32]
        yield Mmio(0x9000000)
        assert cpu.z[3] == OLD[:32]
        yield Mmio(0x9000004)

    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = vector_vcpu(kvm)
        vcpu.guest = OnKernel(guest, "v7.2")
        vcpu.run()
        assert vcpu["z3"] == NEW
        vcpu["z3"] = OLD
        assert vcpu.run().mmio.phys_addr == 0x9000004


def test_a_vcpu_without_sve_has_no_such_guest() -> None:
    """There is nothing for the protocol to move: the script fails at the first KVM_RUN."""

    def guest(cpu: Cpu) -> Iterator[object]:
        yield Mmio(0x9000000)

    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init()
        vcpu.guest = OnKernel(guest, "v6.12")
        with pytest.raises(GuestError, match="needs a vCPU with SVE"):
            vcpu.run()


def test_an_unknown_kernel_is_misuse() -> None:
    """The names are those of kvmabi fpstate variants."""

    def guest(cpu: Cpu) -> Iterator[object]:
        yield None

    with pytest.raises(UsageError, match=r"v0\.1"):
        OnKernel(guest, "v0.1")


def test_the_host_in_between_is_harmless_without_a_kernel() -> None:
    """A guest that is not OnKernel does not notice, and the VMM neither."""

    def guest(cpu: Cpu) -> Iterator[object]:
        cpu.z[3] = NEW[:32]
        yield Preempt()
        yield SoftirqNeon()
        assert cpu.z[3] == NEW[:32]

    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = vector_vcpu(kvm)
        vcpu.guest = guest
        with pytest.raises(KvmError, match="EINTR"):
            vcpu.run()
        assert vcpu["z3"] == NEW
