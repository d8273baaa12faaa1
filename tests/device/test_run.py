# SPDX-License-Identifier: MIT
"""KVM_RUN's end, other address spaces, and how long files live."""

from __future__ import annotations

import mmap
import os
import signal
import struct
from collections.abc import Iterator
from types import FrameType

import pytest
from vmms import vcpu_of

from kvmabi import Kvm, KvmError, uapi, waiting
from kvmabi.kvm import Vcpu

IMMEDIATE_EXIT = uapi.ffi.offsetof("struct kvm_run", "immediate_exit")


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """SIGALRM again and again until the test ends; the list counts them."""
    seen: list[int] = []

    def count(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    yield seen
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_run_ends_with_eintr_at_a_signal(kvm: Kvm, vcpu: Vcpu, alarms: list[int]) -> None:
    """Without immediate_exit a guest runs until a signal comes."""
    with pytest.raises(KvmError, match="EINTR"):
        kvm.ioctl(vcpu.fd, uapi.KVM_RUN)
    assert alarms


def test_a_signal_of_the_run_mask_ends_the_run_and_stays(kvm: Kvm, vcpu: Vcpu) -> None:
    """KVM_SET_SIGNAL_MASK: a signal that only the run unblocks stays pending, and no handler runs."""
    ran: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: ran.append(number))
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        every_but_one = (1 << 64) - 1 ^ 1 << signal.SIGUSR2 - 1
        kvm.ioctl(vcpu.fd, uapi.KVM_SET_SIGNAL_MASK, struct.pack("=IQ", 8, every_but_one))
        signal.raise_signal(signal.SIGUSR2)
        with pytest.raises(KvmError, match="EINTR"):
            kvm.ioctl(vcpu.fd, uapi.KVM_RUN)
        assert signal.SIGUSR2 in signal.sigpending()
        assert not ran
        assert signal.sigtimedwait({signal.SIGUSR2}, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        signal.signal(signal.SIGUSR2, before)


def test_a_signal_that_the_thread_blocks_does_not_end_the_run(kvm: Kvm, vcpu: Vcpu, alarms: list[int]) -> None:
    """It stays pending; another one ends the run, and the first is delivered with the thread's mask."""
    received: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: received.append(number))
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        signal.raise_signal(signal.SIGUSR2)
        seen = len(alarms)
        with pytest.raises(KvmError, match="EINTR"):
            kvm.ioctl(vcpu.fd, uapi.KVM_RUN)
        assert len(alarms) > seen
        assert not received
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        signal.signal(signal.SIGUSR2, before)
    assert received


def test_a_signal_between_the_refusal_and_the_wait_ends_the_run(
    kvm: Kvm, vcpu: Vcpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that arrives while the wait is prepared is not missed; an alarm ends a failing test."""
    before = signal.signal(signal.SIGUSR2, lambda _number, _frame: None)
    make_ready = waiting._sigset

    def late(numbers: set[int]) -> object:
        signal.raise_signal(signal.SIGUSR2)
        return make_ready(numbers)

    monkeypatch.setattr(waiting, "_sigset", late)
    signal.alarm(5)
    try:
        with pytest.raises(KvmError, match="EINTR"):
            kvm.ioctl(vcpu.fd, uapi.KVM_RUN)
        assert signal.alarm(0)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGUSR2, before)


def test_immediate_exit_is_read_from_the_mapping(kvm: Kvm, vcpu: Vcpu) -> None:
    """A write to the vCPU's mapping ends the run at once; the mapping has the size that the kernel reports."""
    size = kvm.ioctl(kvm.fd, uapi.KVM_GET_VCPU_MMAP_SIZE)
    assert isinstance(size, int)
    with mmap.mmap(vcpu.fd, size) as run:
        run[IMMEDIATE_EXIT] = 1
        with pytest.raises(KvmError, match="EINTR"):
            kvm.ioctl(vcpu.fd, uapi.KVM_RUN)


def test_run_writes_how_it_ended(kvm: Kvm, vcpu: Vcpu, alarms: list[int]) -> None:
    """exit_reason and flags are those of a signal; a run that immediate_exit ended leaves them alone."""
    size = kvm.ioctl(kvm.fd, uapi.KVM_GET_VCPU_MMAP_SIZE)
    assert isinstance(size, int)
    with mmap.mmap(vcpu.fd, size) as mapping:
        run = uapi.ffi.cast("struct kvm_run *", uapi.ffi.from_buffer(mapping))
        ends = []
        for immediate_exit in (1, 0):
            run.exit_reason, run.flags, run.immediate_exit = 17, 3, immediate_exit
            with pytest.raises(KvmError, match="EINTR"):
                kvm.ioctl(vcpu.fd, uapi.KVM_RUN)
            ends.append((run.exit_reason, run.flags))
        del run
    assert ends == [(17, 3), (uapi.KVM_EXIT_INTR, 0)]
    assert alarms


def test_run_takes_no_argument(kvm: Kvm, vcpu: Vcpu) -> None:
    with pytest.raises(KvmError, match="EINVAL"):
        kvm.ioctl(vcpu.fd, uapi.KVM_RUN, 1)


def test_file_of_a_vcpu_cannot_be_resized(vcpu: Vcpu) -> None:
    """Else a VMM's ftruncate would kill every process that has it mapped."""
    for size in (0, 4096, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(vcpu.fd, size)


def test_fork_is_another_address_space(kvm: Kvm, vcpu: Vcpu) -> None:
    """The child gets EIO on the parent's VM and vCPU, not on /dev/kvm; the parent is unaffected."""
    child = os.fork()
    if child == 0:
        os._exit(_in_child(kvm, vcpu))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert vcpu.read("svcr") == 3


def _in_child(kvm: Kvm, vcpu: Vcpu) -> int:
    """The checks of a forked child; returns 0 if they pass."""
    try:
        refused = 0
        for fd, request in (
            (vcpu.vm.fd, uapi.KVM_CREATE_VCPU),
            (vcpu.vm.fd, uapi.KVM_CHECK_EXTENSION),
            (vcpu.fd, uapi.KVM_GET_REG_LIST),
            (vcpu.fd, uapi.KVM_RUN),
            (vcpu.fd, 0xAEFF),
        ):
            try:
                kvm.ioctl(fd, request, 5)
            except KvmError as error:
                refused += error.name == "EIO"
        own = vcpu_of(kvm.create_vm())
        own["x0"] = 5
        fine = kvm.ioctl(kvm.fd, uapi.KVM_GET_API_VERSION) == 12 and own.read("x0") == 5
        return 0 if refused == 5 and fine else 1
    except BaseException:
        return 2


def test_vcpu_keeps_its_vm(kvm: Kvm, vcpu: Vcpu) -> None:
    """A vCPU works after its VM's descriptor is closed, as in the kernel."""
    vcpu.vm.close()
    assert vcpu.read("svcr") == 3
    with pytest.raises(KvmError, match="EBADF"):
        kvm.ioctl(vcpu.vm.fd, uapi.KVM_CREATE_VCPU, 1)
    kvm.close(vcpu.fd)


def test_number_of_a_closed_vcpu_stays_taken(kvm: Kvm, vcpu: Vcpu) -> None:
    """The VM keeps its vCPUs until it is released."""
    kvm.close(vcpu.fd)
    with pytest.raises(KvmError, match="EEXIST"):
        vcpu.vm.create_vcpu(0)
    assert vcpu.vm.create_vcpu(1).fd >= 0
