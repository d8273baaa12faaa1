# SPDX-License-Identifier: MIT
"""Breadth-first search: all reachable states of a variant in a configuration, or the shortest path to a breach."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field

from kvmabi.fpstate import symmetry
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.events import Event
from kvmabi.fpstate.invariants import Selection
from kvmabi.fpstate.machine import Breach, Machine
from kvmabi.fpstate.packing import Packing
from kvmabi.fpstate.transitions import EntryPlans, LocalPlans, PairMemo, Special
from kvmabi.fpstate.variants import Variant

HOLDS, VIOLATED, BOUND = "holds", "violated", "bound"
CHECK_MEMORY_EVERY = 1 << 16


@dataclass(frozen=True)
class Bounds:
    """The bounds of an exploration: states, depth in steps, memory of this process in MiB (0: no bound)."""

    states: int = 0
    depth: int = 0
    memory: int = 0


UNBOUNDED = Bounds()


@dataclass(frozen=True)
class Result:
    """The result of an exploration. ``verdict`` is HOLDS (exhausted), VIOLATED or BOUND (inconclusive)."""

    verdict: str
    states: int
    depth: int
    seconds: float
    bound: str = ""
    path: tuple[int, ...] = field(default=(), repr=False)
    last_event: Event | None = None
    broken: tuple[Breach, ...] = ()

    @property
    def rate(self) -> float:
        """States per second."""
        return self.states / self.seconds if self.seconds else 0.0


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Explorer:
    """One search. ``reduce`` enables symmetry reduction, ``forget`` the normalisation of dead values.

    The memo tables are kept across calls of run().
    """

    def __init__(
        self, variant: Variant, config: Config, selection: Selection, *, reduce: bool = True, forget: bool = True
    ) -> None:
        self.selection = selection
        self.packing = packing = Packing(Machine.boot(variant.knobs, config), forget=forget)
        self.local = [LocalPlans(packing, c, selection) for c in range(packing.ncpus)]
        self.entry = [EntryPlans(packing, c, selection) for c in range(packing.ncpus)]
        self.perms = symmetry.permutations(packing) if reduce else []
        self.pairs = [
            [(memo.mask, memo) for memo in (PairMemo(packing, c, t, selection) for c in range(packing.ncpus))]
            for t in range(packing.ntasks)
        ]

    def canonical(self, state: int) -> int:
        """The representative of a state and its renumberings."""
        return symmetry.canonical(state, self.perms)

    def breaks(self, state: int) -> bool:
        """Whether the state breaks a chosen invariant."""
        m4 = self.selection.needs_m4
        for row in self.pairs:
            covered = 0
            for mask, memo in row:
                verdict = memo[state & mask]
                if verdict < 0:
                    return True
                covered |= verdict
            if m4 and not covered:
                return True
        return False

    def successors(self, state: int) -> tuple[list[int], list[tuple[int, Special]]]:
        """The states one step away, and those steps that broke an invariant or crashed the kernel."""
        reached: list[int] = []
        noted: list[tuple[int, Special]] = []
        packing = self.packing
        for c, plans in enumerate(self.local):
            mask = packing.masks[c]
            memo = plans[state & mask]
            plain, special, leaves = memo[state & memo.mask]
            for delta in plain:
                reached.append(state + delta)
            for step in special:
                self._special(state, step, reached, noted)
            if leaves is None:
                continue
            middle = packing.apply(state + leaves.delta, leaves.effects) if leaves.effects else state + leaves.delta
            if leaves.broken or leaves.crashed:
                noted.append((middle, leaves))
                if leaves.crashed:
                    continue
            for entry in self.entry[c][middle & mask]:
                step_in = entry[middle & entry.mask]
                if step_in is None:
                    continue
                if step_in.effects or step_in.broken or step_in.crashed:
                    self._special(middle, step_in, reached, noted)
                else:
                    reached.append(middle + step_in.delta)
        return reached, noted

    def _special(self, state: int, step: Special, reached: list[int], noted: list[tuple[int, Special]]) -> None:
        following = self.packing.apply(state + step.delta, step.effects)
        if step.broken or step.crashed:
            noted.append((following, step))
        if not step.crashed and following != state:
            reached.append(following)

    def run(self, bounds: Bounds = UNBOUNDED) -> Result:
        """Search from boot. The breach that is returned has the fewest possible steps."""
        try:
            return self._run(bounds)
        except MemoryError:  # out of memory, or more distinct components than a packed state can number
            return Result(BOUND, 0, 0, 0.0, bound="memory")

    def _run(self, bounds: Bounds) -> Result:
        started = time.perf_counter()
        boot = self.canonical(self.packing.boot)
        parents: dict[int, int] = {boot: -1}
        frontier, depth = [boot], 0
        limit = bounds.states or 1 << 62
        successors, canonical, breaks, reduce = self.successors, self.canonical, self.breaks, bool(self.perms)

        def result(verdict: str, **more: object) -> Result:
            return Result(verdict, len(parents), depth, time.perf_counter() - started, **more)  # type: ignore[arg-type]

        if breaks(boot):
            return result(VIOLATED, path=(boot,))
        next_check = CHECK_MEMORY_EVERY
        while frontier:
            if bounds.depth and depth >= bounds.depth:
                return result(BOUND, bound="depth")
            depth += 1
            following: list[int] = []
            for state in frontier:
                reached, noted = successors(state)
                for _, step in noted:
                    if step.broken:
                        path = _path(parents, state)
                        return result(VIOLATED, path=path, last_event=step.event, broken=step.broken)
                for new in reached:
                    if new in parents:
                        continue
                    if reduce:
                        new = canonical(new)
                        if new in parents:
                            continue
                    parents[new] = state
                    if breaks(new):
                        return result(VIOLATED, path=_path(parents, new))
                    following.append(new)
                if len(parents) >= limit:
                    return result(BOUND, bound="states")
            if bounds.memory and len(parents) >= next_check:
                next_check = len(parents) + CHECK_MEMORY_EVERY
                if _memory() >= bounds.memory:
                    return result(BOUND, bound="memory")
            frontier = following
        depth -= 1
        return result(HOLDS)


def _path(parents: dict[int, int], state: int) -> tuple[int, ...]:
    path = [state]
    while (state := parents[state]) >= 0:
        path.append(state)
    return tuple(reversed(path))
