# SPDX-License-Identifier: MIT
"""Saving, loading, binding and flushing register state (kernel: arch/arm64/kernel/fpsimd.c).

One function per kernel function, with the same name. The kernel runs each of them with preemption and
softirqs (or interrupts) disabled, so each is one step. Differences between kernels are knobs of the variant.
"""

from __future__ import annotations

from typing import cast

from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.state import CURRENT, FPSIMD, IN_SYSCALL, SM, SVE, VL_GUEST_MAX, VL_HOST, ZA, Cpu, Task
from kvmabi.fpstate.tokens import NOBODY, ZERO, guest, is_guest, is_user, kernel, user


def set_fp_type(m: Machine, owner: Task, fp_type: str) -> None:
    """thread.fp_type = fp_type, on kernels that track it (baa8515281b3)."""
    if m.knobs.fp_type:
        owner.type = fp_type


def saves_sve(m: Machine, cpu: Cpu, current: Task) -> bool:
    """Whether fpsimd_save_user_state picks the SVE format (streaming mode apart)."""
    if cpu.to_save == SVE:
        return True
    if cpu.to_save != CURRENT or not current.SVE:
        return False
    return not (m.knobs.in_syscall == "syscallno" and current.mode in IN_SYSCALL)


def fpsimd_save_user_state(m: Machine, c: int) -> None:
    """Save the live registers to the owner that fpsimd_last_state names (``fpsimd_save`` up to 6.7)."""
    cpu, current = m.cpus[c], m.current(c)
    if current.FOREIGN:
        return
    owner, of_task = m.last(c), is_user(cpu.st)
    if m.config.fpmr and of_task:
        cast(Task, owner).F = cpu.F
    sve = saves_sve(m, cpu, current)
    if m.config.sme:
        if of_task:
            cast(Task, owner).svcr = SM * cpu.SM | ZA * cpu.ZA
        sve = sve or bool(cpu.SM)
    if not sve:
        owner.fV = cpu.V
    else:
        if not cpu.SM and cpu.vl != (VL_GUEST_MAX if is_guest(cpu.st) else VL_HOST):
            m.bug("the live vector length is not the bound one: SIGKILL, nothing saved")
            return
        owner.sV, owner.sZ = cpu.V, cpu.Z
    if of_task:
        set_fp_type(m, cast(Task, owner), SVE if sve else FPSIMD)


def task_fpsimd_load(m: Machine, c: int, task: Task) -> None:
    """Load a task's user state from memory into the registers."""
    cpu = m.cpus[c]
    if m.config.fpmr and m.knobs.fpmr_order == "first":
        cpu.F = task.F
    if m.knobs.load_by_type:
        sve = task.type == SVE
        if not sve:
            task.SVE = cpu.ZEN = 0
        elif not task.svcr & SM:
            task.SVE = cpu.ZEN = 1
    else:
        sve = bool(task.SVE or task.svcr & SM)
    if m.config.sve:
        cpu.vl = VL_HOST
    if m.config.sme:
        cpu.set_streaming(task.svcr & SM)
        cpu.ZA = task.svcr >> 1
    if m.config.fpmr and m.knobs.fpmr_order != "first":
        cpu.F = task.F
    if sve:
        cpu.V, cpu.Z = task.sV, task.sZ
    else:
        cpu.V, cpu.Z = task.fV, ZERO


def fpsimd_bind_task_to_cpu(m: Machine, c: int) -> None:
    """Bind the registers to the user state of current, and set its traps from its flags."""
    cpu, current = m.cpus[c], m.current(c)
    cpu.st, cpu.to_save, current.fcpu = user(cpu.cur), CURRENT, c
    cpu.ZEN, cpu.SMEN = current.SVE, current.SME


def fpsimd_bind_state_to_cpu(m: Machine, c: int, vcpu: int, to_save: str) -> None:
    """Bind the registers to a vCPU: sets fpsimd_last_state only; no task and no trap changes."""
    m.cpus[c].st, m.cpus[c].to_save = guest(vcpu), to_save


def fpsimd_restore_current_state(m: Machine, c: int) -> None:
    """On return to user mode: reload the registers unless current already owns them (the elision)."""
    current = m.current(c)
    if not current.FOREIGN:
        return
    current.FOREIGN = 0
    task_fpsimd_load(m, c, current)
    fpsimd_bind_task_to_cpu(m, c)


def fpsimd_flush_cpu_state(m: Machine, c: int) -> None:
    """Mark the registers as unowned. In a task switch ``current`` is still the old task."""
    cpu = m.cpus[c]
    cpu.st = NOBODY
    if m.config.sme:
        cpu.smstop()
    m.current(c).FOREIGN = 1


def fpsimd_flush_task_state(task: Task) -> None:
    """Unbind the task's user state from all CPUs: memory holds the newest state."""
    task.fcpu = -1
    task.FOREIGN = 1


def fpsimd_save_and_flush_cpu_state(m: Machine, c: int) -> None:
    """Save the live state, then mark the registers as unowned (interrupts off)."""
    fpsimd_save_user_state(m, c)
    fpsimd_flush_cpu_state(m, c)


def fpsimd_save_and_flush_current_state(m: Machine, c: int) -> None:
    """Save the registers of current, then flush: memory holds its newest state (d3a181588df9)."""
    fpsimd_save_user_state(m, c)
    fpsimd_flush_task_state(m.current(c))


def fpsimd_save_kernel_state(m: Machine, c: int) -> None:
    """Save the registers of the interrupted kernel-mode NEON section of current."""
    cpu, current = m.cpus[c], m.current(c)
    current.kV = cpu.V
    if m.knobs.klazy:
        cpu.st, cpu.to_save, current.kcpu = kernel(cpu.cur), FPSIMD, c


def fpsimd_load_kernel_state(m: Machine, c: int, task: int) -> None:
    """Load the registers of a task's kernel-mode NEON section, unless they are still live."""
    cpu, t = m.cpus[c], m.tasks[task]
    if m.knobs.klazy and cpu.st == kernel(task) and t.kcpu == c:
        return
    cpu.V, cpu.Z = t.kV, ZERO


def fpsimd_thread_switch(m: Machine, c: int, following: int) -> None:
    """Task switch, both halves: see fpsimd_thread_switch_out and fpsimd_thread_switch_in."""
    fpsimd_thread_switch_out(m, c)
    fpsimd_thread_switch_in(m, c, following)


def fpsimd_thread_switch_out(m: Machine, c: int) -> None:
    """First half of fpsimd_thread_switch: save the outgoing task's live state."""
    if m.current(c).KERN:
        fpsimd_save_kernel_state(m, c)
    else:
        fpsimd_save_user_state(m, c)


def fpsimd_thread_switch_in(m: Machine, c: int, following: int) -> None:
    """Second half: load kernel-mode state at once; user state waits for the return to user mode.

    FOREIGN is recomputed for the user state: the task owns the registers if this CPU was the last
    that was bound to it *and* nothing else has been bound to this CPU since.
    """
    if following < 0:
        return
    cpu, task = m.cpus[c], m.tasks[following]
    if not task.KERN:
        task.FOREIGN = int(not (cpu.st == user(following) and task.fcpu == c))
        return
    if m.knobs.kswitch == "flush_before":
        fpsimd_flush_cpu_state(m, c)
    fpsimd_load_kernel_state(m, c, following)
    if m.knobs.kswitch == "flush_after":
        fpsimd_flush_cpu_state(m, c)
    elif m.knobs.kswitch == "flag_only":
        task.FOREIGN = 1


def kernel_neon_begin(m: Machine, c: int, *, softirq: bool = False) -> None:
    """Save the live state and claim the registers for kernel code.

    Up to 6.7 the section runs with preemption and softirqs disabled. From 6.8 (aefbab8e77eb) a section in
    task context is preemptible; TIF_KERNEL_FPSTATE records it.
    """
    current = m.current(c)
    if current.KERN:  # a softirq interrupts a task's section
        fpsimd_save_kernel_state(m, c)
    else:
        fpsimd_save_user_state(m, c)
        if m.knobs.kern and not softirq:
            current.KERN = 1
    fpsimd_flush_cpu_state(m, c)


def kernel_neon_end(m: Machine, c: int, *, softirq: bool = False) -> None:
    """Release the registers: to the interrupted section if there is one, else mark them as unowned."""
    current = m.current(c)
    if not current.KERN:
        return
    if softirq:
        fpsimd_load_kernel_state(m, c, m.cpus[c].cur)
    else:
        current.KERN = 0
