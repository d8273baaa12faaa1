# SPDX-License-Identifier: MIT
"""Events: what can happen on a CPU in each mode, and the task switch.

An event is one atomic step. A softirq is one step and can happen wherever the kernel has softirqs enabled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kvmabi.fpstate import entry, fpsimd, kvm
from kvmabi.fpstate.machine import Crash, Machine
from kvmabi.fpstate.state import (
    GUEST_MODE,
    IRQ,
    NEON,
    SME_ACC,
    SVC,
    SVC_EXIT,
    SVE_ACC,
    SYSCALL,
    USER,
    VCPU,
    VL_GUEST,
    VL_GUEST_MAX,
)
from kvmabi.fpstate.tokens import JUNK, ZERO, fresh, guest, kernel, user


class Event(NamedTuple):
    """One step: its name, its CPU, and the task or vCPU it names (-1: none)."""

    name: str
    cpu: int
    arg: int = -1

    def __str__(self) -> str:
        if self.name == "switch":
            return "switch to " + (f"T{self.arg}" if self.arg >= 0 else "idle")
        return f"{self.name} V{self.arg}" if self.name == "vcpu_load" else self.name


def user_write_v(m: Machine, c: int) -> None:
    """An FPSIMD instruction in user mode."""
    task = m.cpus[c].cur
    m.wrote(c, user(task), "V")
    m.tasks[task].want_V = fresh(user(task))


def user_write_z(m: Machine, c: int) -> None:
    """An SVE instruction in user mode that does not trap."""
    task = m.cpus[c].cur
    m.wrote(c, user(task), "Z")
    m.tasks[task].want_Z = fresh(user(task))


def user_write_fpmr(m: Machine, c: int) -> None:
    """A write of FPMR in user mode."""
    task = m.cpus[c].cur
    m.wrote(c, user(task), "F")
    m.tasks[task].want_F = fresh(user(task))


def _user_streaming(m: Machine, c: int, sm: int) -> None:
    current = m.current(c)
    m.cpus[c].set_streaming(sm)
    current.want_SM = sm
    current.want_V = current.want_Z = current.want_F = ZERO


def user_smstart(m: Machine, c: int) -> None:
    """SMSTART SM in user mode."""
    _user_streaming(m, c, 1)


def user_smstop(m: Machine, c: int) -> None:
    """SMSTOP SM in user mode."""
    _user_streaming(m, c, 0)


def user_za_on(m: Machine, c: int) -> None:
    """SMSTART ZA in user mode."""
    m.cpus[c].ZA = m.current(c).want_ZA = 1


def user_za_off(m: Machine, c: int) -> None:
    """SMSTOP ZA in user mode."""
    m.cpus[c].ZA = m.current(c).want_ZA = 0


def el0_irq(m: Machine, c: int) -> None:
    """An interrupt arrives in user mode."""
    m.current(c).mode = IRQ


def el0_svc_common(m: Machine, c: int) -> None:
    """syscallno is set. An interrupt that is taken earlier sees NO_SYSCALL."""
    m.current(c).mode = SYSCALL


def neon_section(m: Machine, c: int) -> None:
    """kernel_neon_begin() in a system call; the section then writes the V registers."""
    fpsimd.kernel_neon_begin(m, c)
    m.current(c).mode = NEON
    m.wrote(c, kernel(m.cpus[c].cur), "V")
    m.cpus[c].Z = ZERO


def neon_section_end(m: Machine, c: int) -> None:
    """The last read of the section's registers, then kernel_neon_end()."""
    fpsimd.kernel_neon_end(m, c)
    current = m.current(c)
    current.mode = SYSCALL
    for component in m.components():
        component.age(fresh(kernel(m.cpus[c].cur)), "V")
    current.kV = ZERO  # dead: written again before it is read again


def softirq_neon(m: Machine, c: int) -> None:
    """A softirq uses NEON."""
    fpsimd.kernel_neon_begin(m, c, softirq=True)
    m.cpus[c].V, m.cpus[c].Z = JUNK, ZERO
    fpsimd.kernel_neon_end(m, c, softirq=True)


def guest_write(m: Machine, c: int) -> None:
    """The guest writes its FP registers (and its SVE registers, if it has SVE)."""
    vcpu = m.cpus[c].guest
    m.wrote(c, guest(vcpu), "V")
    m.vcpus[vcpu].want_V = fresh(guest(vcpu))
    if m.config.guest_sve:
        m.wrote(c, guest(vcpu), "Z")
        m.vcpus[vcpu].want_Z = fresh(guest(vcpu))


def guest_write_zcr(m: Machine, c: int) -> None:
    """The guest toggles between its maximum vector length and a smaller one."""
    vcpu = m.vcpus[m.cpus[c].guest]
    vcpu.zcr ^= 1
    m.cpus[c].vl = VL_GUEST if vcpu.zcr else VL_GUEST_MAX


def cpu_pm_enter(m: Machine, c: int) -> None:
    """The idle CPU powers down and loses its registers."""
    fpsimd.fpsimd_save_and_flush_cpu_state(m, c)
    m.cpus[c].V = m.cpus[c].Z = m.cpus[c].F = JUNK


ACTIONS: dict[str, Callable[[Machine, int], None]] = {
    "user_write_v": user_write_v,
    "user_write_z": user_write_z,
    "user_write_fpmr": user_write_fpmr,
    "user_smstart": user_smstart,
    "user_smstop": user_smstop,
    "user_za_on": user_za_on,
    "user_za_off": user_za_off,
    "el0_irq": el0_irq,
    "el0_sve_trap": entry.el0_sve_trap,
    "do_sve_acc": entry.do_sve_acc,
    "el0_sme_trap": entry.el0_sme_trap,
    "do_sme_acc": entry.do_sme_acc,
    "el0_svc": entry.el0_svc,
    "el0_svc_common": el0_svc_common,
    "ret_to_user": entry.ret_to_user,
    "do_signal": entry.do_signal,
    "prctl_vl": entry.sve_set_vector_length,
    "clone": entry.arch_dup_task_struct,
    "execve": entry.fpsimd_flush_thread,
    "smc": entry.arm_smccc_smc,
    "kernel_neon_begin": neon_section,
    "kernel_neon_end": neon_section_end,
    "softirq_neon": softirq_neon,
    "guest_enter": kvm.guest_enter,
    "guest_fp_trap": kvm.kvm_hyp_handle_fpsimd,
    "guest_write": guest_write,
    "guest_write_zcr": guest_write_zcr,
    "guest_exit": kvm.guest_exit,
    "vcpu_put": kvm.vcpu_put,
    "cpu_pm_enter": cpu_pm_enter,
}
"""Events without an argument, and their functions. The others are "vcpu_load" and "switch"."""


def _user_events(m: Machine, c: int) -> Iterator[str]:
    config, cpu = m.config, m.cpus[c]
    yield "user_write_v"
    yield "el0_svc"
    yield "el0_irq"
    if config.fpmr:
        yield "user_write_fpmr"
    if config.plain_vmm and cpu.cur < config.vmms:
        return
    if cpu.SM or (config.sve and cpu.ZEN):
        yield "user_write_z"
    elif config.sve:
        yield "el0_sve_trap"
    if config.sme and cpu.SMEN:
        yield "user_smstop" if cpu.SM else "user_smstart"
        if config.za:
            yield "user_za_off" if cpu.ZA else "user_za_on"
    elif config.sme:
        yield "el0_sme_trap"


def _syscall_events(m: Machine, c: int) -> Iterator[str]:
    config = m.config
    yield "ret_to_user"
    if config.signal:
        yield "do_signal"
    if config.neon and (m.cpus[c].cur == 0 or not config.one_neon):
        yield "kernel_neon_begin"
    if config.smc:
        yield "smc"
    if config.prctl_vl:
        yield "prctl_vl"
    if config.clone:
        yield "clone"
    if config.execve:
        yield "execve"


def _guest_events(m: Machine, c: int) -> Iterator[str]:
    yield "guest_exit"
    if not m.config.guest_fp:
        return
    if not kvm.guest_has_registers(m, c):
        yield "guest_fp_trap"
        return
    yield "guest_write"
    if m.config.guest_vl:
        yield "guest_write_zcr"


def _fixed(*names: str) -> Callable[[Machine, int], Iterator[str]]:
    return lambda m, c: iter(names)


def _leaving(m: Machine, c: int) -> Iterator[str]:
    yield "ret_to_user"
    if m.config.signal:
        yield "do_signal"


_BY_MODE: dict[str, Callable[[Machine, int], Iterator[str]]] = {
    USER: _user_events,
    IRQ: _leaving,
    SVC_EXIT: _leaving,
    SVC: _fixed("el0_svc_common"),
    SYSCALL: _syscall_events,
    SVE_ACC: _fixed("do_sve_acc"),
    SME_ACC: _fixed("do_sme_acc"),
    NEON: _fixed("kernel_neon_end"),
    VCPU: _fixed("guest_enter", "vcpu_put"),
    GUEST_MODE: _guest_events,
}


def softirqs_on(m: Machine, mode: str) -> bool:
    """Whether a softirq can run: not in user or guest mode (an interrupt comes first), and not in a
    NEON section of a kernel that disables softirqs there."""
    if mode in (USER, GUEST_MODE):
        return False
    return mode != NEON or m.knobs.kern


def preemptible(m: Machine, mode: str) -> bool:
    """Whether a task in this mode can be preempted."""
    if mode in (USER, GUEST_MODE):
        return False
    return mode != NEON or m.knobs.kern or (m.config.rt and not m.knobs.rt_safe)


def local_events(m: Machine, c: int) -> Iterator[Event]:
    """The events that can happen on this CPU without a task switch."""
    task = m.cpus[c].cur
    if task < 0:
        if m.config.softirq:
            yield Event("softirq_neon", c)
        if m.config.cpu_pm:
            yield Event("cpu_pm_enter", c)
        return
    mode = m.tasks[task].mode
    for name in _BY_MODE[mode](m, c):
        yield Event(name, c)
    if mode == SYSCALL and task < m.config.vmms:
        for vcpu, v in enumerate(m.vcpus):
            if v.user < 0:
                yield Event("vcpu_load", c, vcpu)
    if m.config.softirq and softirqs_on(m, mode):
        yield Event("softirq_neon", c)


def may_switch_out(m: Machine, c: int) -> bool:
    """Whether the scheduler can run on this CPU."""
    task = m.cpus[c].cur
    return task < 0 or preemptible(m, m.tasks[task].mode)


def switch_targets(m: Machine, c: int) -> Iterator[int]:
    """The tasks that the scheduler can pick on this CPU; -1 is the idle thread."""
    cur = m.cpus[c].cur
    for task, t in enumerate(m.tasks):
        if t.on < 0:
            yield task
    if cur >= 0 and m.config.idle:
        yield -1


def switch_out(m: Machine, c: int) -> None:
    """First half of a task switch: preempt notifier, then the outgoing half of fpsimd_thread_switch."""
    current = m.current(c)
    if current.mode == VCPU:
        kvm.kvm_arch_vcpu_put_fp(m, c, current.vcpu)
    fpsimd.fpsimd_thread_switch_out(m, c)
    current.on = -1


def switch_in(m: Machine, c: int, task: int) -> None:
    """Second half of a task switch: incoming half of fpsimd_thread_switch, then preempt notifier."""
    fpsimd.fpsimd_thread_switch_in(m, c, task)
    m.cpus[c].cur = task
    if task < 0:
        return
    t = m.tasks[task]
    t.on = c
    if t.mode == VCPU:
        kvm.kvm_arch_vcpu_load_fp(m, c, t.vcpu)


def enabled(m: Machine) -> Iterator[Event]:
    """All events that can happen next."""
    for c in range(len(m.cpus)):
        yield from local_events(m, c)
        if may_switch_out(m, c):
            for task in switch_targets(m, c):
                yield Event("switch", c, task)


def apply(m: Machine, event: Event) -> bool:
    """Carry out an enabled event. Returns False if the kernel crashed."""
    try:
        if event.name == "switch":
            switch_out(m, event.cpu)
            switch_in(m, event.cpu, event.arg)
        elif event.name == "vcpu_load":
            kvm.vcpu_load(m, event.cpu, event.arg)
        else:
            ACTIONS[event.name](m, event.cpu)
    except Crash:
        return False
    return True
