# SPDX-License-Identifier: MIT
"""Saving, loading, binding and flushing register state (kernel: arch/arm64/kernel/fpsimd.c).

One function per kernel function, named alike. Each runs where the kernel has preemption and softirqs
(or interrupts) off, so each is one step. Differences between kernels are knobs of the variant.
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
    """Save the live registers to whoever fpsimd_last_state names (``fpsimd_save`` up to 6.7)."""
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
    """The registers are current's newest user state from now on; its traps follow its flags."""
    cpu, current = m.cpus[c], m.current(c)
    cpu.st, cpu.to_save, current.fcpu = user(cpu.cur), CURRENT, c
    cpu.ZEN, cpu.SMEN = current.SVE, current.SME


def fpsimd_bind_state_to_cpu(m: Machine, c: int, vcpu: int, to_save: str) -> None:
    """The registers are a vCPU's: only fpsimd_last_state learns it, no task and no trap does."""
    m.cpus[c].st, m.cpus[c].to_save = guest(vcpu), to_save


def fpsimd_restore_current_state(m: Machine, c: int) -> None:
    """On the way to user mode: reload unless the registers are already current's (the elision)."""
    current = m.current(c)
    if not current.FOREIGN:
        return
    current.FOREIGN = 0
    task_fpsimd_load(m, c, current)
    fpsimd_bind_task_to_cpu(m, c)


def fpsimd_flush_cpu_state(m: Machine, c: int) -> None:
    """The registers are nobody's from now on. In a task switch ``current`` is still the old task."""
    cpu = m.cpus[c]
    cpu.st = NOBODY
    if m.config.sme:
        cpu.smstop()
    m.current(c).FOREIGN = 1


def fpsimd_flush_task_state(task: Task) -> None:
    """No CPU holds this task's newest user state from now on; memory does."""
    task.fcpu = -1
    task.FOREIGN = 1


def fpsimd_save_and_flush_cpu_state(m: Machine, c: int) -> None:
    """Save whatever is live, then make the registers nobody's (interrupts off)."""
    fpsimd_save_user_state(m, c)
    fpsimd_flush_cpu_state(m, c)


def fpsimd_save_and_flush_current_state(m: Machine, c: int) -> None:
    """Save current's registers and let memory hold its newest state (d3a181588df9)."""
    fpsimd_save_user_state(m, c)
    fpsimd_flush_task_state(m.current(c))


def fpsimd_save_kernel_state(m: Machine, c: int) -> None:
    """Save the registers of current's kernel-mode NEON section, which is being interrupted."""
    cpu, current = m.cpus[c], m.current(c)
    current.kV = cpu.V
    if m.knobs.klazy:
        cpu.st, cpu.to_save, current.kcpu = kernel(cpu.cur), FPSIMD, c


def fpsimd_load_kernel_state(m: Machine, c: int, task: int) -> None:
    """Load the registers of a task's kernel-mode NEON section, unless they are still there."""
    cpu, t = m.cpus[c], m.tasks[task]
    if m.knobs.klazy and cpu.st == kernel(task) and t.kcpu == c:
        return
    cpu.V, cpu.Z = t.kV, ZERO


def fpsimd_thread_switch(m: Machine, c: int, following: int) -> None:
    """Task switch, both halves: see fpsimd_thread_switch_out and fpsimd_thread_switch_in."""
    fpsimd_thread_switch_out(m, c)
    fpsimd_thread_switch_in(m, c, following)


def fpsimd_thread_switch_out(m: Machine, c: int) -> None:
    """First half of fpsimd_thread_switch: save what the outgoing task has in the registers."""
    if m.current(c).KERN:
        fpsimd_save_kernel_state(m, c)
    else:
        fpsimd_save_user_state(m, c)


def fpsimd_thread_switch_in(m: Machine, c: int, following: int) -> None:
    """Second half: kernel state is loaded at once, user state only if the task returns to user mode.

    For user state the cached conclusion FOREIGN is drawn anew: the registers are the task's if this
    CPU was the last to be bound to it *and* nothing else was bound here since.
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
    """Save what the registers hold and take them for kernel code.

    Up to 6.7 the section runs with preemption and softirqs off. From 6.8 (aefbab8e77eb) a section in
    task context is preemptible, which TIF_KERNEL_FPSTATE records.
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
    """Give the registers back: to the interrupted section if there is one, else to nobody."""
    current = m.current(c)
    if not current.KERN:
        return
    if softirq:
        fpsimd_load_kernel_state(m, c, m.cpus[c].cur)
    else:
        current.KERN = 0
