# SPDX-License-Identifier: MIT
"""Kernel entry and exit, one function at a time."""

import pytest

from kvmabi.fpstate import entry
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.fpsimd import fpsimd_bind_task_to_cpu
from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.state import FPSIMD, SVC_EXIT, SVE, SYSCALL, USER
from kvmabi.fpstate.tokens import JUNK, ZERO, fresh, user
from kvmabi.fpstate.variants import find_variant

MINE = fresh(user(0))


def _live(kernel: str, **flags: bool) -> Machine:
    m = Machine.boot(find_variant(kernel).knobs, Config(sve=True).with_flags(**flags))
    cpu, t = m.cpus[0], m.tasks[0]
    cpu.cur, t.on, t.mode, t.FOREIGN = 0, 0, USER, 0
    cpu.V = t.want_V = MINE
    fpsimd_bind_task_to_cpu(m, 0)
    return m


@pytest.mark.parametrize(("kernel", "flag", "zen"), [("v5.17", 0, 0), ("v6.1", 0, 0), ("v6.2", 1, 1), ("v6.16", 1, 1)])
def test_system_call_entry(kernel: str, flag: int, zen: int) -> None:
    """Up to 6.1 SVE is disabled, from 6.2 on only the live Z is zeroed; user mode always expects zeros."""
    m = _live(kernel)
    m.tasks[0].SVE = m.cpus[0].ZEN = 1
    m.cpus[0].Z = m.tasks[0].want_Z = MINE
    entry.el0_svc(m, 0)
    assert (m.tasks[0].SVE, m.cpus[0].ZEN, m.tasks[0].want_Z) == (flag, zen, ZERO)
    assert (ZERO if flag else MINE) == m.cpus[0].Z


def test_sve_trap_live_and_foreign() -> None:
    """Live: zeroed in the registers and bound. Foreign: converted in memory, and from 6.12 on unbound."""
    m = _live("v6.16")
    entry.do_sve_acc(m, 0)
    assert (m.cpus[0].ZEN, m.tasks[0].fcpu) == (1, 0)
    for kernel, fcpu in (("v6.10", 0), ("v6.12", -1)):
        m = _live(kernel)
        m.tasks[0].FOREIGN, m.tasks[0].fV = 1, MINE
        entry.do_sve_acc(m, 0)
        t = m.tasks[0]
        assert (t.sV, t.type, t.fcpu, m.cpus[0].ZEN) == (MINE, SVE, fcpu, 0)


def test_trapping_with_the_flag_set_warns() -> None:
    """do_sve_acc's WARN is O6."""
    m = _live("v6.16")
    m.tasks[0].SVE = 1
    entry.do_sve_acc(m, 0)
    assert [b.clause for b in m.broken] == ["O6"]


def test_return_to_user_ends_fpsimd_saves() -> None:
    """fpsimd_syscall_exit of 6.16 runs after a signal as well."""
    for mode in (SYSCALL, SVC_EXIT):
        m = _live("v6.16")
        m.cpus[0].to_save, m.tasks[0].mode = FPSIMD, mode
        entry.ret_to_user(m, 0)
        assert m.cpus[0].to_save == "CURRENT"


def test_exec_forgets_fpmr_only_from_6_16_on() -> None:
    """a90878f297d3."""
    for kernel, kept in (("v6.14", MINE), ("v6.16", ZERO)):
        m = _live(kernel, fpmr=True)
        m.tasks[0].F = MINE
        entry.fpsimd_flush_thread(m, 0)
        assert (m.tasks[0].F, m.tasks[0].FOREIGN, m.tasks[0].fcpu) == (kept, 1, -1)


def test_hint_is_given_for_current_only() -> None:
    """With TIF_SVE and live registers firmware must keep Z; after 6.12 always."""
    m = _live("v6.10")
    entry.arm_smccc_smc(m, 0)
    assert m.cpus[0].Z == JUNK
    m = _live("v6.10")
    m.tasks[0].SVE = 1
    entry.arm_smccc_smc(m, 0)
    assert m.cpus[0].Z == ZERO
    m = _live("v6.12")
    entry.arm_smccc_smc(m, 0)
    assert m.cpus[0].Z == ZERO


def test_clone_in_a_mended_kernel_takes_the_valid_copy() -> None:
    """The child's V comes from the copy that fp_type names (e0cb0f26594c)."""
    for kernel, broken in (("v6.14", ["O5.V"]), ("v6.16", [])):
        m = _live(kernel)
        t = m.tasks[0]
        t.FOREIGN, t.type, t.sV, t.mode = 1, SVE, MINE, SYSCALL
        entry.arch_dup_task_struct(m, 0)
        assert [b.clause for b in m.broken] == broken
