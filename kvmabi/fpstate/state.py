# SPDX-License-Identifier: MIT
"""The state: what each CPU, task and vCPU records about the FP registers (kernel: fpsimd.c).

Each class is flat and has its fields in a fixed order, so that the explorer can convert it to a tuple
and back. Register values are tokens (tokens.py). Indices count from 0; -1 means none. The names are the
kernel's (FOREIGN is TIF_FOREIGN_FPSTATE, SVE is TIF_SVE, ZEN is the EL0 enable of CPACR_EL1.ZEN) or the
Arm ARM's.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from kvmabi.fpstate.tokens import NOBODY, ZERO, is_guest, rename, rename_owner

# fpsimd_last_state.to_save and thread.fp_type
CURRENT, FPSIMD, SVE = "CURRENT", "FPSIMD", "SVE"
# the owner of the registers according to KVM: kvm_host_data.fp_owner and its predecessors
FREE, HOST, GUEST = "FREE", "HOST", "GUEST"
# the effective SVE vector length: the task's, the guest's maximum, the guest's choice
VL_HOST, VL_GUEST_MAX, VL_GUEST = "host", "guest-max", "guest"

# The modes of a task. Only points where the kernel can be preempted are modes; the rest is one step.
USER = "user"
IRQ = "irq"  # in the kernel after an interrupt or a handled trap, about to return
SVC = "svc"  # a system call before syscallno is set (DAIF unmasked early)
SYSCALL = "syscall"
SVC_EXIT = "svc-exit"  # a system call after signal delivery: syscallno is forgotten
SVE_ACC = "sve_acc"  # trapped on SVE, before do_sve_acc's critical section
SME_ACC = "sme_acc"
NEON = "neon"  # inside kernel_neon_begin .. kernel_neon_end, in a system call
VCPU = "vcpu"  # between vcpu_load and vcpu_put
GUEST_MODE = "guest"  # the guest runs; interrupts are off

IN_SYSCALL = frozenset({SYSCALL, NEON, VCPU, GUEST_MODE})
"""Modes in which pt_regs.syscallno is set."""

SM, ZA = 1, 2
"""Bits of SVCR."""


class Component:
    """A CPU, a task or a vCPU: the unit in which states are stored, compared and memoised."""

    FIELDS: ClassVar[tuple[str, ...]] = ()
    __slots__ = ()

    def age(self, token: int, register: str) -> None:
        """The owner of a fresh token wrote a new value: mark the copies in this component as stale."""
        raise NotImplementedError

    def renamed(self, tasks: tuple[int, ...], cpus: tuple[int, ...]) -> Self:
        """The same component after task i became tasks[i] and CPU i became cpus[i]."""
        raise NotImplementedError

    def values(self) -> tuple[Any, ...]:
        """All fields, in the order of FIELDS."""
        return tuple([getattr(self, f) for f in self.FIELDS])

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Self:
        """The component with these fields."""
        self = cls.__new__(cls)
        for field, value in zip(cls.FIELDS, values, strict=True):
            setattr(self, field, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{f}={getattr(self, f)!r}' for f in self.FIELDS)})"


class Cpu(Component):
    """One CPU: its registers, traps and fpsimd_last_state."""

    FIELDS = (
        *("cur", "V", "Z", "F", "SM", "ZA", "st", "to_save", "ZEN", "SMEN"),
        *("owner", "hostsve", "vl", "guest", "hyp", "hV", "hZ"),
    )
    __slots__ = FIELDS

    cur: int  # task that runs here, -1 when idle
    V: int  # V0-31, the low 128 bits of Z
    Z: int  # Z[127+:], P, FFR
    F: int  # FPMR
    SM: int  # PSTATE.SM
    ZA: int  # PSTATE.ZA
    st: int  # fpsimd_last_state.st: an owner, or NOBODY
    to_save: str
    ZEN: int
    SMEN: int
    owner: str  # host_data.fp_owner (6.10 on)
    hostsve: int  # bit 0 HOST_SVE_ENABLED, bit 1 HOST_SME_ENABLED, per CPU (6.10 on)
    vl: str
    guest: int  # vCPU that is in guest mode here, -1 if none
    hyp: int  # 1: pKVM's hyp has saved the host's registers and loaded the guest's (6.10 on)
    hV: int  # the host's V, saved by hyp
    hZ: int  # the host's Z, saved by hyp

    @classmethod
    def new(cls) -> Self:
        """An idle CPU after boot: zeroed, unowned registers."""
        return cls.of((-1, ZERO, ZERO, ZERO, 0, 0, NOBODY, CURRENT, 0, 0, FREE, 0, VL_HOST, -1, 0, ZERO, ZERO))

    def age(self, token: int, register: str) -> None:
        """The owner wrote a new value: mark a copy of the old one as stale."""
        for field in _CPU_COPIES[register]:
            if getattr(self, field) == token:
                setattr(self, field, token + 1)

    def set_streaming(self, sm: int) -> None:
        """PSTATE.SM becomes sm; any change zeroes V, Z, P, FFR and FPMR."""
        if sm != self.SM:
            self.SM = sm
            self.V = self.Z = self.F = ZERO

    def smstop(self) -> None:
        """SMSTOP: leave streaming mode, turn ZA off."""
        self.set_streaming(0)
        self.ZA = 0

    def renamed(self, tasks: tuple[int, ...], cpus: tuple[int, ...]) -> Self:
        """The same CPU after tasks and CPUs were renumbered."""
        other = self.of(self.values())
        other.cur = tasks[self.cur] if self.cur >= 0 else -1
        other.st = rename_owner(self.st, tasks)
        for field in ("V", "Z", "F", "hV", "hZ"):
            setattr(other, field, rename(getattr(self, field), tasks))
        return other


class Task(Component):
    """One task: thread_info flags, thread_struct copies, and the values that its user mode expects."""

    FIELDS = (
        *("on", "mode", "vcpu", "FOREIGN", "SVE", "SME", "KERN", "fcpu", "kcpu", "fV", "sV", "sZ", "F"),
        *("type", "svcr", "kV", "want_V", "want_Z", "want_F", "want_SM", "want_ZA"),
    )
    __slots__ = FIELDS

    on: int  # CPU that runs it, -1 if none
    mode: str
    vcpu: int  # vCPU whose ioctl it is in (mode vcpu and guest)
    FOREIGN: int  # TIF_FOREIGN_FPSTATE
    SVE: int  # TIF_SVE
    SME: int  # TIF_SME
    KERN: int  # TIF_KERNEL_FPSTATE
    fcpu: int  # thread.fpsimd_cpu
    kcpu: int  # thread.kernel_fpsimd_cpu
    fV: int  # thread.uw.fpsimd_state
    sV: int  # thread.sve_state, low 128 bits of each vector
    sZ: int  # thread.sve_state, the rest
    F: int  # thread.uw.fpmr
    type: str  # thread.fp_type
    svcr: int  # thread.svcr
    kV: int  # thread.kernel_fpsimd_state
    want_V: int  # what user mode sees on a correct kernel
    want_Z: int
    want_F: int
    want_SM: int
    want_ZA: int

    @classmethod
    def new(cls) -> Self:
        """A task that has never run, about to return to user mode for the first time."""
        return cls.of((-1, IRQ, -1, 1, 0, 0, 0, -1, -1, *(ZERO,) * 4, FPSIMD, 0, ZERO, ZERO, ZERO, ZERO, 0, 0))

    def age(self, token: int, register: str) -> None:
        """Its owner wrote the register anew: copies of the old value in this memory are stale now."""
        for field in _TASK_COPIES[register]:
            if getattr(self, field) == token:
                setattr(self, field, token + 1)

    def renamed(self, tasks: tuple[int, ...], cpus: tuple[int, ...]) -> Self:
        """The same task after tasks and CPUs were renumbered."""
        other = self.of(self.values())
        for field in ("on", "fcpu", "kcpu"):
            cpu = getattr(self, field)
            setattr(other, field, cpus[cpu] if cpu >= 0 else -1)
        for field in ("fV", "sV", "sZ", "F", "kV", "want_V", "want_Z", "want_F"):
            setattr(other, field, rename(getattr(self, field), tasks))
        return other


_CPU_COPIES = {"V": ("V", "hV"), "Z": ("Z", "hZ"), "F": ("F",)}
_TASK_COPIES = {"V": ("fV", "sV", "kV"), "Z": ("sZ",), "F": ("F",)}
_VCPU_COPIES = {"V": ("fV", "sV"), "Z": ("sZ",), "F": ()}


class Vcpu(Component):
    """One vCPU: its saved registers and, up to 6.9, KVM's notes on who owns the registers."""

    FIELDS = ("user", "fV", "sV", "sZ", "want_V", "want_Z", "owner", "hostsve", "zcr")
    __slots__ = FIELDS

    user: int  # task that has loaded it, -1 if none
    fV: int  # ctxt.fp_regs
    sV: int  # arch.sve_state, low 128 bits of each vector
    sZ: int  # arch.sve_state, the rest
    want_V: int
    want_Z: int
    owner: str  # FP_HOST and FP_ENABLED, then vcpu.fp_state (up to 6.9)
    hostsve: int  # bit 0 HOST_SVE_ENABLED, bit 1 HOST_SME_ENABLED, per vCPU (up to 6.9)
    zcr: int  # 1: the guest chose a vector length below its maximum

    @classmethod
    def new(cls) -> Self:
        """A vCPU after INIT and FINALIZE, never loaded."""
        return cls.of((-1, ZERO, ZERO, ZERO, ZERO, ZERO, FREE, 0, 0))

    def age(self, token: int, register: str) -> None:
        """Its owner wrote the register anew: copies of the old value in this memory are stale now."""
        for field in _VCPU_COPIES[register]:
            if getattr(self, field) == token:
                setattr(self, field, token + 1)

    def renamed(self, tasks: tuple[int, ...], cpus: tuple[int, ...]) -> Self:
        """The same vCPU after tasks and CPUs were renumbered."""
        other = self.of(self.values())
        other.user = tasks[self.user] if self.user >= 0 else -1
        for field in ("fV", "sV", "sZ"):
            setattr(other, field, rename(getattr(self, field), tasks))
        return other


def bound_to_guest(cpu: Cpu) -> bool:
    """Whether fpsimd_last_state says that the registers are a vCPU's."""
    return cpu.st != NOBODY and is_guest(cpu.st)
