# SPDX-License-Identifier: MIT
"""Kernel entry and exit paths that touch FP state: traps, system calls, signals, exec.

Kernel: arch/arm64/kernel/{fpsimd,entry-common,signal,process}.c.
"""

from __future__ import annotations

from kvmabi.fpstate.fpsimd import (
    fpsimd_bind_task_to_cpu,
    fpsimd_flush_task_state,
    fpsimd_restore_current_state,
    fpsimd_save_and_flush_current_state,
    fpsimd_save_user_state,
    set_fp_type,
)
from kvmabi.fpstate.machine import Breach, Machine
from kvmabi.fpstate.state import (
    CURRENT,
    FPSIMD,
    IRQ,
    SM,
    SME_ACC,
    SVC,
    SVC_EXIT,
    SVE,
    SVE_ACC,
    SYSCALL,
    USER,
    VL_HOST,
    Task,
)
from kvmabi.fpstate.tokens import JUNK, ZERO, difference, name


def sve_to_fpsimd(task: Task) -> None:
    """Convert the SVE copy in memory to the FPSIMD copy."""
    task.fV = task.sV


def el0_sve_trap(m: Machine, c: int) -> None:
    """SVE access trap. sve_alloc(), still preemptible, zeroes thread.sve_state."""
    current = m.current(c)
    current.mode = SVE_ACC
    current.sV = current.sZ = ZERO


def do_sve_acc(m: Machine, c: int) -> None:
    """Critical section of the SVE access trap: convert to the SVE format, live or in memory."""
    cpu, current = m.cpus[c], m.current(c)
    if current.SVE:
        m.bug("do_sve_acc: TIF_SVE was already set (WARN)")
    current.SVE, current.mode = 1, IRQ
    if not current.FOREIGN:
        cpu.Z, cpu.vl = ZERO, VL_HOST
        fpsimd_bind_task_to_cpu(m, c)
        return
    current.sV, current.sZ = current.fV, ZERO
    set_fp_type(m, current, SVE)
    if m.knobs.accfix_sve:
        fpsimd_flush_task_state(current)


def el0_sme_trap(m: Machine, c: int) -> None:
    """SME access trap. No modelled state changes before do_sme_acc()."""
    m.current(c).mode = SME_ACC


def do_sme_acc(m: Machine, c: int) -> None:
    """Critical section of the SME access trap."""
    current = m.current(c)
    if current.SME:
        m.bug("do_sme_acc: TIF_SME was already set (WARN)")
    current.SME, current.mode = 1, IRQ
    if not current.FOREIGN:
        fpsimd_bind_task_to_cpu(m, c)
    elif m.knobs.accfix_sme:
        fpsimd_flush_task_state(current)


def el0_svc(m: Machine, c: int) -> None:
    """System call entry: leave streaming mode and discard live SVE state except V."""
    cpu, current = m.cpus[c], m.current(c)
    if current.want_SM:
        current.want_SM, current.want_V, current.want_F = 0, ZERO, ZERO
    current.want_Z = ZERO
    current.mode = SVC if m.config.svc_window and m.knobs.svc_unmasked else SYSCALL
    if m.config.sme:
        cpu.set_streaming(0)
    if not m.knobs.syscall_keeps_sve:
        current.SVE = cpu.ZEN = 0
    elif current.SVE:
        cpu.Z = ZERO
    if m.knobs.in_syscall == "to_save":
        cpu.to_save = FPSIMD


def ret_to_user(m: Machine, c: int) -> None:
    """The last iteration of the exit-to-user loop, then user mode."""
    current = m.current(c)
    fpsimd_restore_current_state(m, c)
    if m.knobs.in_syscall == "to_save" and current.mode in (SYSCALL, SVC_EXIT):
        m.cpus[c].to_save = CURRENT
    current.mode = USER


def _expect_copy(m: Machine, what: str, register: str, seen: int, wanted: int) -> None:
    if seen != wanted:
        text = f"{what} has {register}={name(seen)}, expected {name(wanted)}"
        m.broken.append(Breach(f"O5.{register}", difference(seen, wanted), text))


def _write_frame(m: Machine, current: Task, sve: bool) -> None:
    """Check the signal frame: V comes from the FPSIMD copy, the rest from the SVE copy if there is one."""
    _expect_copy(m, "signal frame", "V", current.fV, current.want_V)
    _expect_copy(m, "signal frame", "Z", current.sZ if sve else ZERO, current.want_Z)
    if m.config.fpmr:
        _expect_copy(m, "signal frame", "F", current.F, current.want_F)


def do_signal(m: Machine, c: int) -> None:
    """Deliver a signal: save the state of current, write the frame, leave streaming mode for the handler."""
    cpu, current = m.cpus[c], m.current(c)
    current.mode = SVC_EXIT if current.mode in (SYSCALL, SVC_EXIT) else IRQ  # forget_syscall
    if m.knobs.sig_saveflush:
        fpsimd_save_and_flush_current_state(m, c)
    else:
        fpsimd_save_user_state(m, c)
    sve = current.type == SVE if m.knobs.sig_by_type else bool(current.SVE)
    if sve:
        sve_to_fpsimd(current)
    _write_frame(m, current, sve or bool(current.svcr & SM))
    if not m.config.sme:
        return
    if current.want_SM:
        current.want_SM, current.want_V, current.want_Z, current.want_F = 0, ZERO, ZERO, ZERO
    current.want_ZA = 0
    if current.svcr & SM:
        current.fV = ZERO
        set_fp_type(m, current, FPSIMD)
        if m.knobs.sig_smstop == "memory":
            current.F = ZERO
    current.svcr = 0
    if m.knobs.sig_smstop == "live":
        cpu.smstop()


def sve_set_vector_length(m: Machine, c: int) -> None:
    """prctl(PR_SVE_SET_VL) by the task itself: save, flush, keep only V."""
    current = m.current(c)
    fpsimd_save_user_state(m, c)
    fpsimd_flush_task_state(current)
    sve = current.type == SVE if m.knobs.vl_by_type else bool(current.SVE or current.svcr & SM)
    if sve:
        sve_to_fpsimd(current)
    current.SVE = 0
    current.svcr &= ~SM
    set_fp_type(m, current, FPSIMD)
    current.sV = current.sZ = ZERO
    current.want_Z = ZERO


def arch_dup_task_struct(m: Machine, c: int) -> None:
    """clone(): the child inherits the FPSIMD copy only. Its value is checked; no child runs."""
    current = m.current(c)
    fpsimd_save_user_state(m, c)
    if m.knobs.clone_by_type and current.type == SVE:
        sve_to_fpsimd(current)
    _expect_copy(m, "cloned child", "V", current.fV, current.want_V)
    if current.svcr & SM and not m.knobs.clone_clears_sm:
        m.broken.append(Breach("O5.SM", "stale", "cloned child starts in streaming mode"))


def fpsimd_flush_thread(m: Machine, c: int) -> None:
    """execve(): discard the state of the old program, in memory and in the registers."""
    current = m.current(c)
    fpsimd_flush_task_state(current)
    current.fV = current.sV = current.sZ = ZERO
    current.SVE = current.SME = current.svcr = 0
    set_fp_type(m, current, FPSIMD)
    if m.knobs.exec_fpmr:
        current.F = ZERO
    current.want_V = current.want_Z = current.want_F = ZERO
    current.want_SM = current.want_ZA = 0


def arm_smccc_smc(m: Machine, c: int) -> None:
    """An SMC from kernel code. With the SMCCC 1.3 hint, firmware can clobber Z (not V)."""
    current = m.current(c)
    if m.knobs.smc_hint and (current.FOREIGN or not current.SVE):
        m.cpus[c].Z = JUNK
