# SPDX-License-Identifier: MIT
"""One machine, driven step by step: the API for a vCPU emulator, a test or an interactive session.

The methods follow the kernel's phases (vcpu_load, guest entry, ...), not the explorer's events. Each returns
the moves of register contents, so that a caller with real register bytes can copy them likewise, and each
checks the observations: a Violation names the observer and the value (O4 for guests, O1 and O3 for tasks).
"""

from __future__ import annotations

from dataclasses import dataclass

from kvmabi.errors import UsageError
from kvmabi.fpstate import events, invariants, tokens
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.events import Event
from kvmabi.fpstate.invariants import Selection, select
from kvmabi.fpstate.machine import Breach, Machine
from kvmabi.fpstate.state import IRQ, NEON, SYSCALL, USER, VCPU
from kvmabi.fpstate.trace import Step, Trace, take
from kvmabi.fpstate.variants import Variant, default_variant, find_variant

LIVE = Config(tasks=2, vcpus=1, sve=True, neon=True, softirq=True, idle=True, guest_fp=True, guest_sve=True)
"""The default configuration: the VMM, another task and one SVE guest on one CPU."""

OBSERVATIONS = select("O1,O2,O3,O4,O6")


class Violation(Exception):
    """An observation invariant is broken: ``breaches`` says which, ``trace`` holds the steps that led to it."""

    def __init__(self, breaches: tuple[Breach, ...], trace: Trace) -> None:
        super().__init__("; ".join(f"{b.clause}: {b.text}" for b in breaches))
        self.breaches, self.trace = breaches, trace


@dataclass(frozen=True)
class Move:
    """One change of the registers or of a saved copy: ``where`` ("CPU0", "T0", "V0"), ``what`` ("V", "fV",
    "sV", "Z", "sZ", "F", "kV" or a piece of metadata), and the value before and after."""

    where: str
    what: str
    before: object
    after: object


class Ownership:
    """The ownership protocol of one kernel, driven by the caller. The VMM is task 0 on CPU 0.

    ``check`` selects the invariants that raise Violation. With None nothing is raised and ``broken``
    holds the breaches of the last step.
    """

    def __init__(
        self,
        variant: Variant | str | None = None,
        config: Config = LIVE,
        *,
        check: Selection | None = OBSERVATIONS,
    ) -> None:
        self.variant = find_variant(variant) if isinstance(variant, str) else variant or default_variant()
        self.config, self.check = config, check
        self.start = self.machine = Machine.boot(self.variant.knobs, config)
        self.steps: list[Step] = []
        self.broken: tuple[Breach, ...] = ()

    @property
    def trace(self) -> Trace:
        """The steps so far."""
        return Trace(self.variant, self.config, self.start, tuple(self.steps), self.broken)

    def do(self, name: str, cpu: int = 0, arg: int = -1) -> list[Move]:
        """Carry out one event of the model. Raises UsageError if it cannot happen now."""
        event = Event(name, cpu, arg)
        allowed = list(events.enabled(self.machine))
        if event not in allowed:
            can = ", ".join(str(e) for e in allowed if e.cpu == cpu)
            raise UsageError(f"{event} cannot happen on CPU{cpu} now: choose from {can}")
        step = take(len(self.steps) + 1, self.machine, event)
        self.steps.append(step)
        self.machine = step.after
        wanted = self.check or OBSERVATIONS
        self.broken = tuple(b for b in step.breaches if wanted.wants(b))
        if self.broken and self.check is not None:
            raise Violation(self.broken, self.trace)
        return [Move(*change) for change in step.changes]

    def vcpu_load(self, vcpu: int = 0, *, cpu: int = 0, task: int = 0) -> list[Move]:
        """The task calls ioctl(KVM_RUN): from its present mode to vcpu_load."""
        return [*self._to_syscall(cpu, task), *self.do("vcpu_load", cpu, vcpu)]

    def guest_enter(self, *, cpu: int = 0) -> list[Move]:
        """ctxflush, then the guest runs; its first FP access traps unless it owns the registers."""
        return self.do("guest_enter", cpu)

    def fp_trap(self, *, cpu: int = 0) -> list[Move]:
        """The guest uses FP: hyp loads its registers, or nothing moves if they are already loaded."""
        allowed = {e.name for e in events.enabled(self.machine) if e.cpu == cpu}
        if self.machine.cpus[cpu].guest < 0:
            raise UsageError(f"CPU{cpu} is not in guest mode")
        return self.do("guest_fp_trap", cpu) if "guest_fp_trap" in allowed else []

    def guest_write(self, *, cpu: int = 0) -> list[Move]:
        """The guest writes FP registers, after an fp_trap if it does not own the registers."""
        return [*self.fp_trap(cpu=cpu), *self.do("guest_write", cpu)]

    def guest_exit(self, *, cpu: int = 0) -> list[Move]:
        """Leave the guest: hyp's exit path, then ctxsync."""
        return self.do("guest_exit", cpu)

    def vcpu_put(self, *, cpu: int = 0) -> list[Move]:
        """KVM_RUN ends with vcpu_put; the task is still in the system call."""
        return self.do("vcpu_put", cpu)

    def ret_to_user(self, *, cpu: int = 0) -> list[Move]:
        """Return to user mode, reloading foreign registers. The VMM sees its own registers again."""
        return self.do("ret_to_user", cpu)

    def preempt(self, *, cpu: int = 0, by: int = 1) -> list[Move]:
        """Another task runs in user mode, writes its V registers, and the preempted task resumes.

        If a vCPU is loaded, the preempt notifiers call vcpu_put and vcpu_load.
        """
        victim = self.machine.cpus[cpu].cur
        if not 0 <= by < self.config.tasks or by == victim:
            raise UsageError(f"T{by} cannot preempt T{victim} on CPU{cpu}: it is not another task of this machine")
        moves = self.do("switch", cpu, by)
        mode = self.machine.tasks[by].mode
        if mode in (IRQ, SYSCALL):
            moves += self.do("ret_to_user", cpu)
            moves += self.do("user_write_v", cpu)
            moves += self.do("el0_irq", cpu)
        elif mode not in (NEON, VCPU):
            raise UsageError(f"T{by} is in mode {mode}: step it with do()")
        return moves + self.do("switch", cpu, victim)

    def softirq_neon(self, *, cpu: int = 0) -> list[Move]:
        """A softirq uses NEON between two steps (not while the guest runs: an exit comes first)."""
        return self.do("softirq_neon", cpu)

    def run(self, *, cpu: int = 0, vcpu: int = 0, writes: bool = True) -> list[Move]:
        """One whole KVM_RUN: load, enter, the guest reads (and writes) FP registers, exit, put, user mode."""
        moves = self.vcpu_load(vcpu, cpu=cpu) + self.guest_enter(cpu=cpu)
        moves += self.guest_write(cpu=cpu) if writes else self.fp_trap(cpu=cpu)
        return moves + self.guest_exit(cpu=cpu) + self.vcpu_put(cpu=cpu) + self.ret_to_user(cpu=cpu)

    def assert_guest_sees_its_own(self, *, cpu: int = 0) -> None:
        """Check O4 now: raise Violation if the guest would read anything but its newest registers."""
        o4 = select("O4")
        seen = tuple(b for b in invariants.breaches_of_current(self.machine, cpu) if o4.wants(b))
        if seen:
            raise Violation(seen, self.trace)

    def guest_value(self, vcpu: int = 0, *, register: str = "V") -> str:
        """What ioctl(KVM_GET_ONE_REG) would read of the guest's registers now: "fresh", "stale", "zero", or
        the name of another owner's value. The ioctl reads the saved copy, so live changes read as stale."""
        if register not in ("V", "Z"):
            raise UsageError(f"a guest has the registers V and Z, not {register!r}")
        v = self.machine.vcpus[vcpu]
        saved = (v.sV if self.config.guest_sve else v.fV) if register == "V" else v.sZ
        wanted = v.want_V if register == "V" else v.want_Z
        if saved == wanted:
            return "fresh"
        if saved == tokens.ZERO:
            return "zero"
        return "stale" if tokens.owner_of(saved) == tokens.guest(vcpu) else tokens.name(saved)

    def _to_syscall(self, cpu: int, task: int) -> list[Move]:
        moves: list[Move] = []
        if self.machine.cpus[cpu].cur != task:
            moves += self.do("switch", cpu, task)
        ways = {IRQ: "ret_to_user", USER: "el0_svc"}
        while (now := self.machine.tasks[task].mode) != SYSCALL:
            if now not in ways:
                raise UsageError(f"T{task} is in mode {now} and cannot start KVM_RUN")
            moves += self.do(ways[now], cpu)
        return moves


__all__ = ["LIVE", "OBSERVATIONS", "Move", "Ownership", "Violation"]
