# SPDX-License-Identifier: MIT
"""The machine that transitions work on: CPUs, tasks, vCPUs, and the rules of the selected kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvmabi.fpstate.state import Component, Cpu, Task, Vcpu
from kvmabi.fpstate.tokens import LIMIT, fresh, is_guest, is_user

if TYPE_CHECKING:
    from kvmabi.fpstate.config import Config
    from kvmabi.fpstate.variants import Knobs


@dataclass(frozen=True, order=True)
class Breach:
    """One broken invariant clause: its name, the value seen and the value expected.

    ``clause`` is "O1.V" and the like; ``kind`` is "leak", "stale", "lost", "lie" or "bug".
    """

    clause: str
    kind: str
    text: str

    @property
    def invariant(self) -> str:
        """The invariant's number: the clause without its register."""
        return self.clause.partition(".")[0]


class Crash(Exception):
    """The kernel stops here (BUG(), NULL pointer dereference): no state follows."""


class Idle(Task):
    """The idle thread: its registers are always foreign and never saved."""

    __slots__ = ()


@dataclass(slots=True)
class Machine:
    """One state, unpacked. Transitions change it in place and append the breaches of a step to ``broken``."""

    knobs: Knobs
    config: Config
    cpus: list[Cpu]
    tasks: list[Task]
    vcpus: list[Vcpu]
    broken: list[Breach] = field(default_factory=list)

    @classmethod
    def boot(cls, knobs: Knobs, config: Config) -> Machine:
        """All CPUs idle, no task has run yet, no vCPU is loaded."""
        return cls(
            knobs,
            config,
            [Cpu.new() for _ in range(config.cpus)],
            [Task.new() for _ in range(config.tasks)],
            [Vcpu.new() for _ in range(config.vcpus)],
        )

    def copy(self) -> Machine:
        """A copy of the state, without breaches."""
        return Machine(
            self.knobs,
            self.config,
            [Cpu.of(c.values()) for c in self.cpus],
            [Task.of(t.values()) for t in self.tasks],
            [Vcpu.of(v.values()) for v in self.vcpus],
        )

    def components(self) -> list[Component]:
        """All components: CPUs, tasks, vCPUs."""
        return [*self.cpus, *self.tasks, *self.vcpus]

    def current(self, cpu: int) -> Task:
        """The kernel's ``current`` on this CPU; the idle thread if no task runs."""
        task = self.cpus[cpu].cur
        return self.tasks[task] if task >= 0 else Idle.new()

    def last(self, cpu: int) -> Task | Vcpu:
        """The task or vCPU that fpsimd_last_state.st names on this CPU. Raises Crash if it names none."""
        st = self.cpus[cpu].st
        if is_user(st):
            return self.tasks[st]
        if st >= 0 and is_guest(st):
            return self.vcpus[st - 2 * LIMIT]
        self.bug("fpsimd_last_state.st is not a user state: saving through it dereferences NULL")
        raise Crash

    def wrote(self, cpu: int, owner: int, *registers: str) -> None:
        """The owner writes a new value to these live registers: its older copies become stale."""
        token = fresh(owner)
        for register in registers:
            for component in (*self.cpus, *self.tasks, *self.vcpus):
                component.age(token, register)
            setattr(self.cpus[cpu], register, token)

    def bug(self, text: str) -> None:
        """A SIGKILL, BUG or WARN edge was taken (O6)."""
        self.broken.append(Breach("O6", "bug", text))
