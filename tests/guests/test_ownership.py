# SPDX-License-Identifier: MIT
"""A scripted guest on the ownership protocol of several kernels, seen through KVM_GET_ONE_REG."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvmabi
from kvmabi.errors import UsageError
from kvmabi.guests.ownership import ChooseVectorLength, Guest, Preempt, Read, SoftirqNeon, Step, Write

OLD, NEW = bytes([1]) * 32 + bytes(224), bytes([5]) * 32 + bytes(224)
LOSING = [Write({"z3": NEW[:32]}), ChooseVectorLength(), SoftirqNeon(), Read()]


def run(script: list[Step], variant: str | None = None) -> tuple[list[bytes], bytes, list[str]]:
    """What the guest's reads of z3 saw, what userspace reads afterwards, and what the protocol got wrong."""
    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve"})
        vcpu.finalize()
        vcpu["z3"] = OLD
        guest = Guest(kvm.vcpu_model(vcpu.fd), variant)
        seen = [registers["z3"] for registers in guest.run(script)]
        return seen, vcpu["z3"], guest.broken


def test_a_present_kernel_keeps_what_the_guest_wrote() -> None:
    """The softirq after a change of vector length does no harm, to the guest nor to a VMM that reads the register."""
    assert run(LOSING) == ([NEW], NEW, [])


def test_a_historical_kernel_loses_it() -> None:
    """On 6.12 nothing is saved: guest and VMM read what was there before, and the protocol says why."""
    seen, read, broken = run(LOSING, "v6.12")
    assert seen == [OLD]
    assert read == OLD
    assert any(text.startswith("O4") for text in broken)


STEPS = st.sampled_from([Write({"z3": NEW[:32]}), Read(), ChooseVectorLength(), Preempt(), SoftirqNeon()])


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.lists(STEPS, max_size=8))
def test_on_a_present_kernel_every_read_sees_the_last_write(script: list[Step]) -> None:
    """Whatever the host does in between; O4 is asserted on every step."""
    seen, read, broken = run(script)
    value, expected = OLD, []
    for step in script:
        if isinstance(step, Write):
            value = NEW
        elif isinstance(step, Read):
            expected.append(value)
    assert (seen, read, broken) == (expected, value, [])


def test_a_write_of_something_else_is_misuse() -> None:
    """A guest writes Z registers, no longer than they are."""
    for registers in ({"x0": b"1"}, {"z3": bytes(33)}, {"zz": b""}):
        with pytest.raises(UsageError):
            run([Write(registers)])


def test_a_vcpu_without_sve_has_no_such_guest() -> None:
    """There is nothing for the protocol to move."""
    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init()
        with pytest.raises(UsageError, match="needs a vCPU with SVE"):
            Guest(kvm.vcpu_model(vcpu.fd))
