# SPDX-License-Identifier: MIT
"""States as integers, and transitions that are computed once.

A state is a machine: a few CPUs, tasks and vCPUs. Each component's field values are interned, so that a
component is a small number and a state is one integer with WIDTH bits per component. An event on a CPU can
read only that CPU, its current task and, where KVM is involved, the vCPUs. The transition functions therefore
run on those components alone, and their result is memoised as an integer *difference*: the same local
situation in another state costs one look-up and one addition. All other components are Outside objects: a
function can set a field or age a token there (recorded as an effect), but any read raises OutOfScope. A
transition that reads too much is thus never memoised wrongly; it fails.
"""

from __future__ import annotations

from typing import Any, cast

from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.state import CURRENT, GUEST_MODE, NEON, VL_HOST, Component, Cpu, Task, Vcpu
from kvmabi.fpstate.tokens import JUNK, NOBODY, ZERO, user

WIDTH = 20
FIELD = (1 << WIDTH) - 1

Effect = tuple[int, tuple[Any, ...]]
"""A change outside the scope: the component's slot and the change."""


class OutOfScope(Exception):
    """A transition read a component that its event must not depend on: a bug of the model."""


class Outside:
    """A component that the event must not read. Changes to it are collected as effects."""

    __slots__ = ("_effects", "_slot")

    def __init__(self, slot: int, effects: list[Effect]) -> None:
        object.__setattr__(self, "_slot", slot)
        object.__setattr__(self, "_effects", effects)

    def __setattr__(self, field: str, value: Any) -> None:
        self._effects.append((self._slot, ("set", field, value)))

    def age(self, token: int, register: str) -> None:
        """As Component.age, but deferred."""
        self._effects.append((self._slot, ("age", token, register)))

    def __getattr__(self, field: str) -> Any:
        raise OutOfScope(f"component {object.__getattribute__(self, '_slot')}: {field} is read from outside")


def forget_dead(m: Machine, c: int) -> None:
    """Normalise values that no later step can read, so that states that differ only in them become one.

    Unowned registers (st names no owner, and current neither owns them nor is about to save them) are always
    loaded before they are read. The exception is PREEMPT_RT before the fix, where a section can be preempted
    without being saved: another task's section can still rely on them. A binding of which only the task's half
    is left can never become valid again: the CPU's half is always set together with the task's.
    """
    cpu = m.cpus[c]
    task = m.tasks[cpu.cur] if cpu.cur >= 0 else None
    if not m.config.fpmr:
        cpu.F = ZERO
    if task is not None and task.fcpu == c and cpu.st != user(cpu.cur):
        task.fcpu = -1
    if m.config.rt and not (m.knobs.rt_safe or m.knobs.kern):
        return
    if cpu.st == NOBODY and (task is None or (task.FOREIGN and task.mode not in (NEON, GUEST_MODE))):
        cpu.V = cpu.Z = JUNK
        cpu.F = JUNK if m.config.fpmr else ZERO
        cpu.vl, cpu.to_save = VL_HOST, CURRENT


class Interned:
    """The distinct values of one kind of component, with a number each."""

    def __init__(self, kind: type[Component]) -> None:
        self.kind = kind
        self.numbers: dict[tuple[Any, ...], int] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.changed: dict[tuple[Any, ...], int] = {}

    def number(self, component: Component) -> int:
        """The number of the component; a new component gets the next number."""
        values = component.values()
        number = self.numbers.get(values)
        if number is None:
            number = self.numbers[values] = len(self.rows)
            self.rows.append(values)
            if number > FIELD:
                raise MemoryError(f"more than {FIELD} different components")
        return number

    def make(self, number: int) -> Component:
        """The component with this number."""
        return self.kind.of(self.rows[number])

    def after(self, number: int, change: tuple[Any, ...]) -> int:
        """The number of the component after an effect."""
        key = (number, change)
        changed = self.changed.get(key)
        if changed is None:
            component = self.make(number)
            if change[0] == "set":
                setattr(component, change[1], change[2])
            else:
                component.age(change[1], change[2])
            changed = self.changed[key] = self.number(component)
        return changed


class Packing:
    """The codec of one machine shape: slots are CPUs, then tasks, then vCPUs."""

    def __init__(self, machine: Machine, *, forget: bool = True) -> None:
        self.forget = forget
        self.knobs, self.config = machine.knobs, machine.config
        self.ncpus, self.ntasks, self.nvcpus = len(machine.cpus), len(machine.tasks), len(machine.vcpus)
        cpus, tasks, vcpus = Interned(Cpu), Interned(Task), Interned(Vcpu)
        self.slots = [cpus] * self.ncpus + [tasks] * self.ntasks + [vcpus] * self.nvcpus
        self.shifts = [i * WIDTH for i in range(len(self.slots))]
        self.masks = [FIELD << s for s in self.shifts]
        self.boot = self.pack(machine)

    def task_slot(self, task: int) -> int:
        """The slot of a task."""
        return self.ncpus + task

    def vcpu_slots(self) -> list[int]:
        """The slots of all vCPUs."""
        return list(range(self.ncpus + self.ntasks, len(self.slots)))

    def mask(self, slots: list[int]) -> int:
        """The bits of these slots."""
        return sum(self.masks[s] for s in slots)

    def pack(self, machine: Machine) -> int:
        """The integer of a state. Normalises the machine's dead values first (forget_dead)."""
        packed = 0
        for c in range(self.ncpus if self.forget else 0):
            forget_dead(machine, c)
        for slot, component in enumerate(machine.components()):
            packed |= self.slots[slot].number(component) << self.shifts[slot]
        return packed

    def unpack(self, state: int) -> Machine:
        """The whole machine of a state."""
        return self.partial(state, list(range(len(self.slots))))[0]

    def partial(self, state: int, scope: list[int]) -> tuple[Machine, list[Effect]]:
        """The machine with only these slots readable, and the list that collects effects on the others."""
        effects: list[Effect] = []
        parts: list[Any] = [Outside(slot, effects) for slot in range(len(self.slots))]
        for slot in scope:
            parts[slot] = self.slots[slot].make(state >> self.shifts[slot] & FIELD)
        first, second = self.ncpus, self.ncpus + self.ntasks
        return Machine(
            self.knobs,
            self.config,
            cast(list[Cpu], parts[:first]),
            cast(list[Task], parts[first:second]),
            cast(list[Vcpu], parts[second:]),
        ), effects

    def difference(self, state: int, machine: Machine, scope: list[int]) -> int:
        """The difference that turns the slots in scope into those of the machine."""
        total = 0
        parts: list[Component] = machine.components()
        for slot in scope:
            shift = self.shifts[slot]
            total += (self.slots[slot].number(parts[slot]) - (state >> shift & FIELD)) << shift
        return total

    def apply(self, state: int, effects: tuple[Effect, ...]) -> int:
        """The state after effects on components outside an event's scope."""
        for slot, change in effects:
            shift = self.shifts[slot]
            old = state >> shift & FIELD
            new = self.slots[slot].after(old, change)
            if new != old:
                state += (new - old) << shift
        return state
