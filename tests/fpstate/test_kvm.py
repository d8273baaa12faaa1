# SPDX-License-Identifier: MIT
"""KVM's functions, per kernel: load, trap, exit, put."""

import pytest

from kvmabi.fpstate import kvm
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.fpsimd import fpsimd_bind_task_to_cpu
from kvmabi.fpstate.machine import Crash, Machine
from kvmabi.fpstate.state import FREE, HOST, SVE, SYSCALL, VL_GUEST, VL_GUEST_MAX
from kvmabi.fpstate.tokens import NOBODY, fresh, guest, user
from kvmabi.fpstate.variants import find_variant

MINE, GUESTS = fresh(user(0)), fresh(guest(0))


def _in_ioctl(kernel: str, *, sve: int = 0, **flags: bool) -> Machine:
    config = Config(vcpus=1, sve=True, guest_fp=True, guest_sve=True).with_flags(**flags)
    m = Machine.boot(find_variant(kernel).knobs, config)
    cpu, t = m.cpus[0], m.tasks[0]
    cpu.cur, t.on, t.mode, t.FOREIGN, t.SVE = 0, 0, SYSCALL, 0, sve
    cpu.V = t.want_V = MINE
    fpsimd_bind_task_to_cpu(m, 0)
    m.vcpus[0].sV = m.vcpus[0].want_V = GUESTS
    return m


@pytest.mark.parametrize(
    ("kernel", "owner", "flag", "zen", "foreign"),
    [("v6.12", HOST, 0, 1, 0), ("prop0121", HOST, 0, 0, 0), ("v6.14", FREE, 1, 1, 1)],
)
def test_load_with_sve_on(kernel: str, owner: str, flag: int, zen: int, foreign: int) -> None:
    """6.2 to 6.13 clear the flag but do not enable the trap; the proposal does both; 6.14 saves and flushes."""
    m = _in_ioctl(kernel, sve=1)
    kvm.vcpu_load(m, 0, 0)
    after = (m.cpus[0].owner, m.tasks[0].SVE, m.cpus[0].ZEN, m.tasks[0].FOREIGN)
    assert after == (owner, flag, zen, foreign)


def test_load_with_sve_on_is_a_bug_before_6_2() -> None:
    """BUG_ON(TIF_SVE): a system call has cleared it."""
    m = _in_ioctl("v5.17", sve=1)
    with pytest.raises(Crash):
        kvm.vcpu_load(m, 0, 0)


def test_notes_move_from_vcpu_to_cpu() -> None:
    """5294afdbf45a."""
    for kernel, per_cpu in (("v6.8", False), ("v6.10", True)):
        m = _in_ioctl(kernel)
        kvm.vcpu_load(m, 0, 0)
        assert (m.cpus[0].owner == HOST, m.vcpus[0].owner == HOST) == (per_cpu, not per_cpu)


@pytest.mark.parametrize(("kernel", "saved"), [("v6.12", True), ("v6.14", True), ("v6.14-saveflush", False)])
def test_host_v_is_saved_by_somebody(kernel: str, saved: bool) -> None:
    """By hyp's trap handler up to 6.13, at load from 6.14; without either it is lost."""
    m = _in_ioctl(kernel)
    kvm.vcpu_load(m, 0, 0)
    kvm.guest_enter(m, 0)
    kvm.kvm_hyp_handle_fpsimd(m, 0)
    assert (m.tasks[0].fV == MINE) is saved
    assert m.cpus[0].V == GUESTS


@pytest.mark.parametrize(("kernel", "to_save", "flag"), [("v5.17", "CURRENT", 1), ("v6.2", SVE, 0), ("v6.16", SVE, 0)])
def test_exit_binds_the_guest(kernel: str, to_save: str, flag: int) -> None:
    """Up to 6.1 KVM uses TIF_SVE for the guest's format, later to_save."""
    m = _in_ioctl(kernel)
    kvm.vcpu_load(m, 0, 0)
    kvm.guest_enter(m, 0)
    kvm.kvm_hyp_handle_fpsimd(m, 0)
    kvm.guest_exit(m, 0)
    cpu, t = m.cpus[0], m.tasks[0]
    assert (cpu.st, cpu.to_save, t.FOREIGN, t.SVE) == (guest(0), to_save, 0, flag)
    kvm.vcpu_put(m, 0)
    assert (cpu.st, t.FOREIGN, m.vcpus[0].sV) == (NOBODY, 1, GUESTS)


@pytest.mark.parametrize(
    ("kernel", "nvhe", "length"),
    [("v6.12", True, VL_GUEST), ("v6.12", False, VL_GUEST_MAX), ("v6.14", True, VL_GUEST_MAX)],
)
def test_vector_length_after_exit(kernel: str, nvhe: bool, length: str) -> None:
    """Under nVHE the guest's choice stays in effect until 59419f10045b."""
    m = _in_ioctl(kernel, nvhe=nvhe)
    m.vcpus[0].zcr = 1
    kvm.vcpu_load(m, 0, 0)
    kvm.guest_enter(m, 0)
    kvm.kvm_hyp_handle_fpsimd(m, 0)
    assert m.cpus[0].vl == VL_GUEST
    kvm.guest_exit(m, 0)
    assert m.cpus[0].vl == length


def test_pkvm_never_shows_guest_to_the_host() -> None:
    """b5b9955617bc: at exit the host's registers are back and nothing is bound to the guest."""
    m = _in_ioctl("v6.12", pkvm=True)
    kvm.vcpu_load(m, 0, 0)
    kvm.guest_enter(m, 0)
    kvm.kvm_hyp_handle_fpsimd(m, 0)
    assert (m.cpus[0].V, m.cpus[0].owner) == (GUESTS, HOST)
    kvm.guest_exit(m, 0)
    assert (m.cpus[0].V, m.cpus[0].st, m.cpus[0].owner) == (MINE, user(0), HOST)
    assert m.vcpus[0].sV == GUESTS


def test_put_restores_the_trap_only_up_to_6_13() -> None:
    """HOST_SVE_ENABLED."""
    for kernel, zen in (("v6.12", 1), ("v6.14", 0)):
        m = _in_ioctl(kernel, sve=1)
        kvm.vcpu_load(m, 0, 0)
        kvm.guest_enter(m, 0)
        kvm.guest_exit(m, 0)
        assert m.cpus[0].ZEN == 0
        kvm.vcpu_put(m, 0)
        assert zen == m.cpus[0].ZEN
