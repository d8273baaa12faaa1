# SPDX-License-Identifier: MIT
"""Counterexamples as traces: the events, the state after each, the first lie and the observation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kvmabi.errors import UsageError
from kvmabi.fpstate import events, invariants
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.events import Event
from kvmabi.fpstate.explorer import Explorer, Result
from kvmabi.fpstate.invariants import Selection
from kvmabi.fpstate.machine import Breach, Machine
from kvmabi.fpstate.state import Component
from kvmabi.fpstate.variants import Variant


@dataclass(frozen=True)
class Step:
    """One event and the machine before and after it. ``changes`` are (component, field, before, after)."""

    number: int
    event: Event
    who: str
    before: Machine
    after: Machine
    breaches: tuple[Breach, ...]
    crashed: bool = False

    @property
    def changes(self) -> list[tuple[str, str, Any, Any]]:
        """The fields that the event changed."""
        result = []
        names = component_names(self.after)
        for name, old, new in zip(names, self.before.components(), self.after.components(), strict=True):
            for key, was, now in zip(old.FIELDS, old.values(), new.values(), strict=True):
                if was != now:
                    result.append((name, key, was, now))
        return result


@dataclass(frozen=True)
class Trace:
    """A run of a variant. ``observation`` holds the selected breaches of the last step, if any."""

    variant: Variant
    config: Config
    start: Machine = field(repr=False)
    steps: tuple[Step, ...]
    observation: tuple[Breach, ...] = ()

    @property
    def events(self) -> tuple[Event, ...]:
        """The events alone."""
        return tuple(s.event for s in self.steps)

    @property
    def first_lie(self) -> tuple[Step, Breach] | None:
        """The earliest step after which a metadata invariant is broken, and the breach."""
        for step in self.steps:
            for breach in step.breaches:
                if breach.invariant in invariants.METADATA:
                    return step, breach
        return None

    @property
    def summary(self) -> str:
        """The trace as one line: "12 steps, O1: T1 user reads V=k(T0), expected u(T1) (leak)"."""
        if not self.observation:
            return f"{len(self.steps)} steps, nothing broken"
        breach = self.observation[0]
        return f"{len(self.steps)} steps, {breach.clause}: {breach.text} ({breach.kind})"


def component_names(m: Machine) -> list[str]:
    """The names of the components, in order: CPU0, T0, V0."""
    cpus = [f"CPU{i}" for i in range(len(m.cpus))]
    tasks = [f"T{i}" for i in range(len(m.tasks))]
    return cpus + tasks + [f"V{i}" for i in range(len(m.vcpus))]


def component(m: Machine, name: str) -> Component:
    """The component with this name."""
    return dict(zip(component_names(m), m.components(), strict=True))[name]


def where(m: Machine, cpu: int) -> str:
    """What a CPU runs: "T0/syscall", "idle"."""
    task = m.cpus[cpu].cur
    return f"T{task}/{m.tasks[task].mode}" if task >= 0 else "idle"


def take(number: int, before: Machine, event: Event) -> Step:
    """Carry out an event on a copy of the machine."""
    after = before.copy()
    crashed = not events.apply(after, event)
    broken = tuple(after.broken) if crashed else tuple(invariants.breaches(after))
    after.broken.clear()
    return Step(number, event, where(before, event.cpu), before, after, broken, crashed)


def replay(variant: Variant, config: Config, story: Iterable[Event], selection: Selection) -> tuple[Trace, str]:
    """Replay events on a variant as far as they can happen. Returns the trace and why it stopped ("": it did not).

    An event without a cause on this variant (a trap where the access does not trap) stops the replay.
    """
    start = now = Machine.boot(variant.knobs, config)
    steps: list[Step] = []
    for number, event in enumerate(story, 1):
        allowed = list(events.enabled(now))
        if event not in allowed:
            here = [str(e) for e in allowed if e.cpu == event.cpu]
            stop = f"step {number}: {event} on CPU{event.cpu} cannot happen here: choose from {', '.join(here)}"
            return _trace(variant, config, start, steps, selection), stop
        steps.append(take(number, now, event))
        now = steps[-1].after
        if steps[-1].crashed:
            break
    return _trace(variant, config, start, steps, selection), ""


def _trace(variant: Variant, config: Config, start: Machine, steps: list[Step], selection: Selection) -> Trace:
    seen = tuple(b for b in steps[-1].breaches if selection.wants(b)) if steps else ()
    return Trace(variant, config, start, tuple(steps), seen)


def trace_of(explorer: Explorer, variant: Variant, result: Result) -> Trace:
    """The concrete run of a result's path, whose states are representatives under symmetry."""
    if not result.path:
        raise UsageError("no invariant is violated: there is no trace")
    packing = explorer.packing
    start = now = Machine.boot(packing.knobs, packing.config)
    shadow = start.copy()  # the same run with dead values normalised, as in the explorer
    steps: list[Step] = []
    for target in result.path[1:]:
        event, shadow = _event_to(explorer, shadow, target)
        steps.append(take(len(steps) + 1, now, event))
        now = steps[-1].after
    if result.last_event is not None:
        steps.append(_breaking_step(explorer, now, len(steps) + 1))
    trace = _trace(variant, packing.config, start, steps, explorer.selection)
    if not trace.observation:
        raise AssertionError("the explorer reports a breach that the model does not have")
    return trace


def _event_to(explorer: Explorer, now: Machine, target: int) -> tuple[Event, Machine]:
    for event in events.enabled(now):
        after = now.copy()
        if events.apply(after, event) and explorer.canonical(explorer.packing.pack(after)) == target:
            return event, after
    raise AssertionError("the explorer reached a state that the model cannot reach")


def _breaking_step(explorer: Explorer, now: Machine, number: int) -> Step:
    for event in events.enabled(now):
        step = take(number, now, event)
        if any(b.invariant in ("O5", "O6") and explorer.selection.wants(b) for b in step.breaches):
            return step
    raise AssertionError("the explorer reports a breach that the model does not have")
