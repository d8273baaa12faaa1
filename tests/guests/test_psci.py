# SPDX-License-Identifier: MIT
"""Hypercalls: PSCI by version, power states that agree with KVM_RUN and MP_STATE, the SMCCC filter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from guests.machines import DEVICE, machine, mp_state, once, set_mp_state, smccc_filter, wait
from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.guests import Cpu, GuestError, Hypercall, Mmio, cpu_off, cpu_on, cpu_suspend, system_off, system_reset

RUNNABLE, STOPPED = uapi.KVM_MP_STATE_RUNNABLE, uapi.KVM_MP_STATE_STOPPED
NEGATIVE = 1 << 64
VERSION = uapi.PSCI_0_2_FN_PSCI_VERSION


def calls(*wanted: Hypercall, version: int | None = None, kernel: str | None = None) -> list[int]:
    """X0 after each of these calls on a VM with two vCPUs, the second powered off; negative as signed."""
    results: list[int] = []

    def guest(cpu: Cpu) -> Iterator[Any]:
        for call in wanted:
            x0 = yield call
            results.append(x0 - NEGATIVE if x0 >> 63 else x0)
        yield Mmio(DEVICE)

    with machine("psci_0_2", count=2, kernel=kernel) as (_vm, (vcpu, _other)):
        if version is not None:
            vcpu["psci_version"] = version
        vcpu.guest = guest
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO
    return results


def features(function: int) -> Hypercall:
    """PSCI_FEATURES."""
    return Hypercall(uapi.PSCI_1_0_FN_PSCI_FEATURES, (function,))


@pytest.mark.parametrize(
    ("version", "answers"),
    [
        (0x2, [0x2, -1, -1, -1, -1]),
        (0x10000, [0x10000, 0, -1, -1, -1]),
        (0x10001, [0x10001, 0, 0, -1, -1]),
        (0x10003, [0x10003, 0, 0, 1, -1]),
    ],
)
def test_functions_exist_from_their_version_on(version: int, answers: list[int]) -> None:
    """PSCI_VERSION is the register's value; FEATURES knows what the version has, and SUSPEND where it is enabled."""
    asked = [
        Hypercall(VERSION),
        features(uapi.PSCI_0_2_FN_CPU_OFF),
        features(uapi.PSCI_1_1_FN64_SYSTEM_RESET2),
        features(uapi.PSCI_1_3_FN64_SYSTEM_OFF2),
        features(uapi.PSCI_1_0_FN64_SYSTEM_SUSPEND),
    ]
    assert calls(*asked, version=version) == answers


def test_results_of_calls_that_change_nothing() -> None:
    """Bad arguments, unknown functions, a vCPU that is on."""
    results = {
        Hypercall(0x84000042): -1,
        cpu_on(5, 0): -2,
        cpu_on(1 << 24, 0): -2,
        cpu_on(0, 0): -4,
        Hypercall(uapi.PSCI_0_2_FN64_AFFINITY_INFO, (0, 0)): 0,
        Hypercall(uapi.PSCI_0_2_FN64_AFFINITY_INFO, (1, 0)): 1,
        Hypercall(uapi.PSCI_0_2_FN64_AFFINITY_INFO, (0, 1)): 0,
        Hypercall(uapi.PSCI_0_2_FN64_AFFINITY_INFO, (7, 0)): -2,
        Hypercall(uapi.PSCI_0_2_FN64_AFFINITY_INFO, (0, 4)): -2,
        Hypercall(uapi.PSCI_0_2_FN_MIGRATE_INFO_TYPE): 2,
        Hypercall(uapi.PSCI_1_0_FN64_SYSTEM_SUSPEND): -1,
        Hypercall(uapi.PSCI_1_1_FN64_SYSTEM_RESET2, (1,)): -2,
        Hypercall(uapi.PSCI_1_3_FN64_SYSTEM_OFF2, (2,)): -2,
        Hypercall(0x80000000): 0x10001,
        Hypercall(VERSION, smc=True): 0x10003,
    }
    assert calls(*results) == list(results.values())


def test_psci_0_1_without_the_feature() -> None:
    """The VM has KVM's own numbers, and neither a version nor the numbers of 0.2."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        assert (yield Hypercall(VERSION)) == NEGATIVE - 1
        assert (yield Hypercall(uapi.KVM_PSCI_FN_CPU_ON, (0, 0, 0))) == NEGATIVE - 2
        assert (yield Hypercall(uapi.KVM_PSCI_FN_CPU_ON, (1, 0x8000, 3))) == 0
        yield Mmio(DEVICE)

    with machine(count=2) as (_vm, (vcpu, other)):
        vcpu.guest = guest
        vcpu.run()
        wait(other)
        assert (other.read("pc"), other.read("x0"), mp_state(other)) == (0x8000, 3, RUNNABLE)


def test_cpu_on_starts_a_vcpu_that_waits_in_kvm_run() -> None:
    """It is reset at once, and begins at the entry with the context in X0; CPU_OFF stops it again."""

    def first(cpu: Cpu) -> Iterator[Any]:
        assert (yield cpu_on(1, 0x8000, 77)) == 0
        assert (yield cpu_on(1, 0x8000, 78)) == NEGATIVE - 4
        yield Mmio(DEVICE)

    def second(cpu: Cpu) -> Iterator[Any]:
        assert (cpu.pc, cpu.x[0], cpu.x[5], cpu.svcr) == (0x8000, 77, 0, 0)
        yield Mmio(DEVICE)
        yield cpu_off()
        raise AssertionError("it has not been switched on")

    with machine("psci_0_2", "sme", count=2) as (_vm, (vcpu, other)):
        vcpu.guest, other.guest = first, second
        other["x5"] = 5
        other["svcr"] = 3
        assert mp_state(other) == STOPPED
        wait(other)
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO
        assert (mp_state(other), other.read("x5"), other.read("svcr")) == (RUNNABLE, 0, 0)
        assert (other.read("pc"), other.read("x0")) == (0x8000, 77)
        assert other.run().exit_reason == uapi.KVM_EXIT_MMIO
        wait(other)
        assert (mp_state(other), other.read("pc"), other.read("x0")) == (STOPPED, 0x8008, 0)


def test_a_vcpu_that_the_vmm_makes_runnable_goes_on_behind_its_cpu_off() -> None:
    """KVM_SET_MP_STATE resets nothing."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        cpu.x[5] = 5
        assert (yield cpu_off()) == 0
        yield Mmio(DEVICE)

    with machine("psci_0_2") as (_vm, (vcpu,)):
        vcpu.guest = guest
        wait(vcpu)
        set_mp_state(vcpu, RUNNABLE)
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO
        assert vcpu.read("x5") == 5


def test_a_script_begins_anew_each_time_its_vcpu_is_switched_on() -> None:
    """CPU_OFF and CPU_ON in turn, and INIT by the VMM."""
    begun: list[int] = []

    def first(cpu: Cpu) -> Iterator[Any]:
        while True:
            yield cpu_on(1, 0x8000, len(begun))
            yield Mmio(DEVICE)

    def second(cpu: Cpu) -> Iterator[Any]:
        begun.append(cpu.x[0])
        yield cpu_off()

    with machine("psci_0_2", count=2) as (_vm, (vcpu, other)):
        vcpu.guest, other.guest = first, second
        for _ in range(3):
            vcpu.run()
            wait(other)
        assert begun == [0, 1, 2]
        other.init({"psci_0_2"})
        wait(other)
        assert begun == [0, 1, 2, 0]


EVENTS = {
    "off": (system_off(), uapi.KVM_SYSTEM_EVENT_SHUTDOWN, 0),
    "reset": (system_reset(), uapi.KVM_SYSTEM_EVENT_RESET, 0),
    "reset2": (
        Hypercall(uapi.PSCI_1_1_FN64_SYSTEM_RESET2, (0,)),
        uapi.KVM_SYSTEM_EVENT_RESET,
        uapi.KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2,
    ),
    "off2": (
        Hypercall(uapi.PSCI_1_3_FN64_SYSTEM_OFF2, (1,)),
        uapi.KVM_SYSTEM_EVENT_SHUTDOWN,
        uapi.KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2,
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_the_end_of_a_system_is_an_event_and_stops_every_vcpu(name: str) -> None:
    """Type and flags; a VMM that goes on all the same shows the guest an internal failure."""
    call, kind, flags = EVENTS[name]
    seen: list[int] = []

    def guest(cpu: Cpu) -> Iterator[Any]:
        seen.append((yield call))
        yield Mmio(DEVICE)

    with machine("psci_0_2", count=2) as (_vm, (vcpu, other)):
        set_mp_state(other, RUNNABLE)
        vcpu.guest = guest
        run = vcpu.run()
        event = run.system_event
        assert (run.exit_reason, event.type, event.ndata, event.flags) == (
            uapi.KVM_EXIT_SYSTEM_EVENT,
            kind,
            1,
            flags,
        )
        assert (mp_state(vcpu), mp_state(other)) == (STOPPED, STOPPED)
        wait(vcpu)
        assert seen == []
        set_mp_state(vcpu, RUNNABLE)
        vcpu.run()
        assert seen == [NEGATIVE - 6]


def test_system_suspend_is_the_vmms_where_it_asked_for_it() -> None:
    """The registers keep the arguments, and no vCPU is stopped."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield Hypercall(uapi.PSCI_1_0_FN64_SYSTEM_SUSPEND, (0x9000, 5))

    with machine("psci_0_2") as (vm, (vcpu,)):
        capability = {"cap": uapi.KVM_CAP_ARM_SYSTEM_SUSPEND}
        vm.kvm.ioctl(vm.fd, uapi.KVM_ENABLE_CAP, uapi.ffi.new("struct kvm_enable_cap *", capability))
        vcpu.guest = guest
        run = vcpu.run()
        assert (run.exit_reason, run.system_event.type) == (
            uapi.KVM_EXIT_SYSTEM_EVENT,
            uapi.KVM_SYSTEM_EVENT_SUSPEND,
        )
        assert (vcpu.read("x0"), vcpu.read("x1"), vcpu.read("x2")) == (0xC400000E, 0x9000, 5)
        assert mp_state(vcpu) == RUNNABLE


def test_cpu_suspend_is_a_wait() -> None:
    """It returns success once an interrupt is pending, or a signal has ended KVM_RUN."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        cpu.x[3] = 3
        assert (yield cpu_suspend()) == 0
        yield Mmio(DEVICE)

    with machine("psci_0_2") as (_vm, (vcpu,)):
        vcpu.guest = guest
        wait(vcpu)
        assert (vcpu.read("pc"), vcpu.read("x0"), vcpu.read("x3")) == (4, 0, 0)
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


@pytest.mark.parametrize("smc", [False, True])
def test_a_call_that_the_filter_forwards_is_the_vmms(smc: bool) -> None:
    """nr and flags in kvm_run, the arguments in registers; X0 is what the VMM wrote there."""
    seen: list[int] = []

    def guest(cpu: Cpu) -> Iterator[Any]:
        seen.append((yield Hypercall(0x86000001, (11, 12), smc=smc)))
        seen.append((yield Hypercall(0x86000101)))
        yield Mmio(DEVICE)

    with machine("psci_0_2") as (vm, (vcpu,)):
        smccc_filter(vm, 0x86000000, 0x10, uapi.KVM_SMCCC_FILTER_FWD_TO_USER)
        smccc_filter(vm, 0x86000100, 0x10, uapi.KVM_SMCCC_FILTER_DENY)
        vcpu.guest = guest
        run = vcpu.run()
        assert (run.exit_reason, run.hypercall.nr) == (uapi.KVM_EXIT_HYPERCALL, 0x86000001)
        assert run.hypercall.flags == (uapi.KVM_HYPERCALL_EXIT_SMC if smc else 0)
        assert (vcpu.read("x0"), vcpu.read("x1"), vcpu.read("x2")) == (0x86000001, 11, 12)
        vcpu["x0"] = 99
        vcpu.run()
        assert seen == [99, NEGATIVE - 1]


def test_a_kernel_without_the_filter_answers_an_smc_itself() -> None:
    """6.1: an SMC is not a call that KVM knows."""
    assert calls(Hypercall(VERSION, smc=True), Hypercall(VERSION), kernel="linux-6.1") == [-1, 0x10001]


def test_a_call_that_is_not_modelled_says_so() -> None:
    """In the event of its KVM_RUN; the guest gets NOT_SUPPORTED."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        assert (yield Hypercall(0x86000000)) == NEGATIVE - 1
        yield Mmio(DEVICE)

    with machine("psci_0_2") as (vm, (vcpu,)):
        vcpu.guest = guest
        vcpu.run()
        event = vm.kvm.log.events[-1]
        assert (event.what, event.modelled) == ("KVM_RUN", False)
        assert "0x86000000" in event.reason


def test_a_call_with_too_much_fails_in_the_script() -> None:
    """Seventeen arguments of 64 bits."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        for call in (Hypercall(1, tuple(range(18))), Hypercall(1, (1 << 64,)), Hypercall("x")):  # type: ignore[arg-type]
            with pytest.raises(GuestError):
                yield call
        yield Mmio(DEVICE)

    with machine() as (_vm, (vcpu,)):
        vcpu.guest = guest
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


def test_a_vcpu_without_a_guest_is_switched_on_as_well() -> None:
    """It then idles at the entry."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield cpu_on(1, 0x8000, 3)
        yield Mmio(DEVICE)

    with machine("psci_0_2", count=2) as (_vm, (vcpu, other)):
        vcpu.guest = guest
        vcpu.run()
        with pytest.raises(KvmError, match="EINTR"):
            other.run()
        assert (other.read("pc"), other.read("x0")) == (0x8000, 3)


def test_interrupts_of_a_guest_are_none_at_first() -> None:
    """No line is high."""
    assert once(lambda cpu: cpu.interrupts) == frozenset()
