# SPDX-License-Identifier: MIT
"""Successors and verdicts of packed states, memoised by scope (packing.py explains why that is sound)."""

from __future__ import annotations

from typing import NamedTuple

from kvmabi.fpstate import events, invariants
from kvmabi.fpstate.events import Event
from kvmabi.fpstate.invariants import Selection
from kvmabi.fpstate.machine import Breach, Crash, Machine
from kvmabi.fpstate.packing import FIELD, Effect, Packing, forget_dead
from kvmabi.fpstate.state import Cpu, bound_to_guest

BROKEN = -1
"""Verdict: an invariant is broken."""


class Special(NamedTuple):
    """A successor that is more than a difference: it has effects outside the scope, a breach or a crash."""

    delta: int
    effects: tuple[Effect, ...]
    event: Event
    broken: tuple[Breach, ...]
    crashed: bool


class Outcome(NamedTuple):
    """The successors in one scope: plain differences, and all others."""

    plain: tuple[int, ...]
    special: tuple[Special, ...]
    leaves: Special | None  # first half of a task switch


NOTHING = Outcome((), (), None)


class LocalMemo(dict[int, Outcome]):
    """The outcome of one CPU's events, by the state of the CPU, its current task and, if needed, the vCPUs."""

    def __init__(self, packing: Packing, cpu: int, scope: list[int], selection: Selection) -> None:
        super().__init__()
        self.packing, self.cpu, self.scope, self.selection = packing, cpu, scope, selection
        self.mask = packing.mask(scope)

    def __missing__(self, key: int) -> Outcome:
        m, _ = self.packing.partial(key, self.scope)
        plain, special = [], []
        for event in list(events.local_events(m, self.cpu)):
            step = self._step(key, event)
            if step.broken or step.crashed or step.effects:
                special.append(step)
            elif step.delta:
                plain.append(step.delta)
        leaves = self._step(key, Event("switch", self.cpu)) if events.may_switch_out(m, self.cpu) else None
        outcome = self[key] = Outcome(tuple(plain), tuple(special), leaves)
        return outcome

    def _step(self, key: int, event: Event) -> Special:
        m, effects = self.packing.partial(key, self.scope)
        crashed = False
        if event.name == "switch":
            try:
                events.switch_out(m, self.cpu)
            except Crash:
                crashed = True
        else:
            crashed = not events.apply(m, event)
            if self.packing.forget:
                forget_dead(m, self.cpu)
        delta = self.packing.difference(key, m, self.scope)
        return Special(delta, tuple(effects), event, _wanted(m, self.selection), crashed)


class EntryMemo(dict[int, Special | None]):
    """The second half of a task switch, by the state in scope. None: the task runs on another CPU."""

    def __init__(self, packing: Packing, cpu: int, task: int, scope: list[int], selection: Selection) -> None:
        super().__init__()
        self.packing, self.cpu, self.task, self.scope, self.selection = packing, cpu, task, scope, selection
        self.mask = packing.mask(scope)

    def __missing__(self, key: int) -> Special | None:
        m, effects = self.packing.partial(key, self.scope)
        if self.task >= 0 and m.tasks[self.task].on >= 0:
            self[key] = None
            return None
        crashed = False
        try:
            events.switch_in(m, self.cpu, self.task)
        except Crash:
            crashed = True
        if self.packing.forget:
            forget_dead(m, self.cpu)
        delta = self.packing.difference(key, m, self.scope)
        event = Event("switch", self.cpu, self.task)
        step = self[key] = Special(delta, tuple(effects), event, _wanted(m, self.selection), crashed)
        return step


class PairMemo(dict[int, int]):
    """The verdict on one CPU and one task: BROKEN; 1 if the task's newest state is available (live on this
    CPU or fresh in memory); else 0 (M4 is broken unless another CPU holds the state)."""

    def __init__(self, packing: Packing, cpu: int, task: int, selection: Selection) -> None:
        super().__init__()
        config = packing.config
        slots = [cpu, packing.task_slot(task)]
        if task < config.vmms:
            slots += packing.vcpu_slots()
        self.packing, self.cpu, self.task, self.scope, self.selection = packing, cpu, task, slots, selection
        self.mask = packing.mask(slots)

    def __missing__(self, key: int) -> int:
        m, _ = self.packing.partial(key, self.scope)
        breaches = list(invariants.breaches_of_binding(m, self.cpu, self.task))
        breaches += invariants.breaches_of_task(m, self.task)
        if m.cpus[self.cpu].cur == self.task:
            breaches += invariants.breaches_of_current(m, self.cpu)
        verdict = int(invariants.live(m, self.cpu, self.task) or invariants.memory_is_fresh(m, self.task))
        if any(self.selection.wants(b) for b in breaches):
            verdict = BROKEN
        self[key] = verdict
        return verdict


def _wanted(m: Machine, selection: Selection) -> tuple[Breach, ...]:
    return tuple(b for b in m.broken if selection.wants(b))


class LocalPlans(dict[int, LocalMemo]):
    """The memo for a CPU, by the CPU's bits: the current task decides the scope."""

    def __init__(self, packing: Packing, cpu: int, selection: Selection) -> None:
        super().__init__()
        self.packing, self.cpu, self.selection = packing, cpu, selection
        self.memos: dict[tuple[int, bool], LocalMemo] = {}

    def __missing__(self, bits: int) -> LocalMemo:
        cpu = _cpu(self.packing, self.cpu, bits)
        vmm = 0 <= cpu.cur < self.packing.config.vmms or bound_to_guest(cpu)
        memo = self.memos.get((cpu.cur, vmm))
        if memo is None:
            scope = [self.cpu]
            if cpu.cur >= 0:
                scope.append(self.packing.task_slot(cpu.cur))
            if vmm:
                scope += self.packing.vcpu_slots()
            memo = self.memos[cpu.cur, vmm] = LocalMemo(self.packing, self.cpu, scope, self.selection)
        self[bits] = memo
        return memo


class EntryPlans(dict[int, tuple[EntryMemo, ...]]):
    """The memos for the second half of a task switch, by the CPU's bits after the first half."""

    def __init__(self, packing: Packing, cpu: int, selection: Selection) -> None:
        super().__init__()
        self.packing, self.cpu, self.selection = packing, cpu, selection
        self.memos: dict[tuple[int, bool], EntryMemo] = {}

    def __missing__(self, bits: int) -> tuple[EntryMemo, ...]:
        cpu = _cpu(self.packing, self.cpu, bits)
        targets = [t for t in range(self.packing.ntasks) if t != cpu.cur]
        if self.packing.config.idle and cpu.cur >= 0:
            targets.append(-1)
        memos = self[bits] = tuple(self._memo(cpu, t) for t in targets)
        return memos

    def _memo(self, cpu: Cpu, task: int) -> EntryMemo:
        vmm = 0 <= task < self.packing.config.vmms or bound_to_guest(cpu)
        memo = self.memos.get((task, vmm))
        if memo is None:
            scope = [self.cpu]
            if task >= 0:
                scope.append(self.packing.task_slot(task))
            if vmm:
                scope += self.packing.vcpu_slots()
            memo = self.memos[task, vmm] = EntryMemo(self.packing, self.cpu, task, scope, self.selection)
        return memo


def _cpu(packing: Packing, slot: int, bits: int) -> Cpu:
    component = packing.slots[slot].make(bits >> packing.shifts[slot] & FIELD)
    assert isinstance(component, Cpu)
    return component
