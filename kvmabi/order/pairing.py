# SPDX-License-Identifier: MIT
"""From which save each vCPU was restored: VMs before vCPUs, vCPUs by index, then the right one of a vCPU's saves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from copy import copy

from kvmabi.order.choosing import choose, rivals
from kvmabi.order.fitting import (
    FEW,
    Fit,
    Shape,
    differing,
    eligible,
    equal_in_sample,
    fit,
    is_exact,
    may_fit,
    shape_of,
    was_entered_since,
)
from kvmabi.order.moments import Moment, agreed, moments, of_vcpu
from kvmabi.order.narrowing import likeliest, varying
from kvmabi.order.restores import HALF, MOST, accepts, is_complete, is_likely, is_nearly
from kvmabi.order.rounds import is_set_up_anew, rounds
from kvmabi.order.saves import Save
from kvmabi.order.values import same
from kvmabi.order.voting import Source, source_of, sources
from kvmabi.order.writes import FEWEST_WRITES, Writes

FEWEST_EQUAL = 4
"""How many registers of a sample are equal in a save that makes saves with far fewer not worth looking at."""


class Pairing:
    """The pairs of what was written (``writes``) and the saves that it restored.

    ``unsure`` are the saves of which one was meant, by ``id()`` of the writes to a vCPU; None among them: perhaps none.
    """

    def __init__(self, saves: Sequence[Save], writes: Sequence[Writes]) -> None:
        self._by_vm: dict[Source, list[Save]] = defaultdict(list)
        self._shapes: list[Shape] = []
        by_place: dict[tuple[str, int, int], list[Save]] = defaultdict(list)
        for save in saves:
            if save.label is None:
                self._by_vm[save.from_run, save.vm].append(save)
                before = by_place[save.from_run, save.vm, save.vcpu]
                self._shapes.append(shape_of(save, before))
                before.append(save)
        self._telling = varying(self._shapes)
        self._writes = writes
        self.unsure: dict[int, list[Save | None]] = {}
        self._all = {id(of): self._all_fits(of) for of in writes}
        self._fits = {id(of): self._accepted(of) for of in writes}

    def pairs(self) -> dict[int, Save]:
        """The save that each was restored from, by ``id()`` of the writes, if it is a restore."""
        found: dict[int, Save] = {}
        for restored in rounds(self._writes):
            found |= self._pairs_of_vm(restored)
        return found

    def near(self, writes: Writes) -> Save | None:
        """The save that a vCPU was given many values of, if it is not a restore of it."""
        near = [found for found in self._all.get(id(writes), ()) if is_nearly(writes, found)]
        return max(near, key=lambda found: found.score).save if near else None

    def _accepted(self, writes: Writes) -> list[Fit]:
        """The fits that make a restore: what was dropped before it ran may be the beginning of one that fits better."""
        fits = self._all[id(writes)]
        accepted = [found for found in fits if accepts(writes, found)]
        if writes.entered:
            return accepted
        begun = [found for found in fits if not is_complete(found)]
        return [found for found in accepted if not any(other.is_better_than(found) for other in begun)]

    def _all_fits(self, writes: Writes) -> list[Fit]:
        if not writes.evidence:
            return []
        shapes = [
            (equal_in_sample(writes, shape.save), shape) for shape in self._shapes if eligible(writes, shape.save)
        ]
        most, most_equal_vm = max(((equal, shape.save.vm) for equal, shape in shapes), default=(0, 0))
        fewest = most // FEW if most >= FEWEST_EQUAL else 0
        likely = [(equal, shape) for equal, shape in shapes if equal >= fewest]
        unlikely = [(equal, shape) for equal, shape in shapes if equal < fewest and shape.save.vm == most_equal_vm]
        return self._fitting(writes, likely) or self._fitting(writes, unlikely)

    def _fitting(self, writes: Writes, shapes: Iterable[tuple[int, Shape]]) -> list[Fit]:
        """The fits of those saves that a sample of the values looks like."""
        alike = [(equal, shape) for equal, shape in shapes if may_fit(writes, shape, equal)]
        compared = likeliest(writes, alike, self._telling)
        return [found for _, shape in compared if (found := fit(writes, shape)) is not None]

    def without(self, left_out: Set[int]) -> Pairing:
        """The same without some saves, given by ``id()``."""
        rest = copy(self)
        rest._by_vm = defaultdict(list)
        for vm, saves in self._by_vm.items():
            rest._by_vm[vm] = [save for save in saves if id(save) not in left_out]
        rest._shapes = [shape for shape in self._shapes if id(shape.save) not in left_out]
        rest._all = {of: _without(found, left_out) for of, found in self._all.items()}
        rest._fits = {of: _without(found, left_out) for of, found in self._fits.items()}
        return rest

    def _pairs_of_vm(self, restored: list[Writes]) -> dict[int, Save]:
        """The pairs of one VM: the VM that it was restored from first, then each vCPU by its index."""
        voted = sources(restored, self._fits, self._all)
        if not voted:
            return {}
        source = voted[0]
        alone = len({writes.vcpu for writes in restored}) == 1
        if is_set_up_anew(restored):
            restored = [of for of in restored if of.wiped is None]  # the rest was restored before
        tells = any(self._tells(of, source) for of in restored if of.fresh)
        found = {
            id(of): save
            for of in restored
            if (save := self._save_of(of, source, alone=alone)) is not None and (tells or was_entered_since(of, save))
        }
        passes = self._agree(restored, source, found)
        self._add_siblings(restored, source, found, passes, tells=tells)
        if len(voted) > 1:
            self._doubt_source(restored, voted, found)
        for writes in restored:
            if id(writes) in found and id(writes) not in self.unsure:
                self._doubt(writes, found[id(writes)], of_vcpu(passes, found[id(writes)].vcpu), alone=alone)
        return found

    def _doubt_source(self, restored: list[Writes], voted: Sequence[Source], found: dict[int, Save]) -> None:
        """Notes the saves of a vCPU to which nothing was restored in every VM that may have been meant."""
        for writes in restored:
            if not writes.fresh or not writes.entered or len(writes.attempts) >= FEWEST_WRITES:
                continue
            meant: list[Save | None] = [found.get(id(writes))]
            for vm in voted[1:]:
                fits = [one for of in restored for one in self._fits[id(of)] if source_of(one) == vm]
                near = max(fits, key=lambda one: one.score, default=None)
                latest = _latest(writes, vm)
                saved = [save for save in self._by_vm[vm] if save.vcpu == writes.vcpu and save.first_event < latest]
                meant.append(None if near is None else self._together(near.save, saved, latest))
            pair = next((save for save in meant if save is not None), None)
            if pair is not None:
                found.setdefault(id(writes), pair)
                self.unsure[id(writes)] = [*self.unsure.get(id(writes), ()), *meant]

    def _doubt(self, writes: Writes, chosen: Save, passing: Sequence[Save], *, alone: bool) -> None:
        """Notes the other saves that may as well have been meant, unless the other vCPUs of the VM decide it."""
        fits = [found.save for found in self._fits[id(writes)] if found.save.from_run == chosen.from_run]
        saves = [save for save in fits if save.vcpu == chosen.vcpu and (alone or save.vm == chosen.vm)]
        if any(save is chosen for save in passing):
            saves = [save for save in saves if any(save is one for one in passing)]
        others = rivals(writes, chosen, saves, self._by_vm[chosen.from_run, chosen.vm])
        if others:
            self.unsure[id(writes)] = [chosen, *others]

    def _save_of(self, writes: Writes, source: Source, *, alone: bool) -> Save | None:
        fits = self._fits[id(writes)]
        if not fits:
            return None
        from_source = [found for found in fits if source_of(found) == source]
        by_index = [found for found in from_source if found.save.vcpu == writes.vcpu]
        if by_index:  # a restore of this vCPU: any save of it that was attempted as a whole may be the one
            place = by_index[0].save.place
            others = (found for found in self._all[id(writes)] if found.save.place == place and not found.save.from_run)
            by_index += [found for found in others if found.coverage >= MOST and found not in by_index]
        elsewhere = [found for found in from_source if found.save.vcpu != writes.vcpu]
        chosen = self._choose(writes, by_index) if by_index else None
        if chosen is not None and (alone or not elsewhere or is_exact(writes, chosen)):
            return chosen
        saved = [save for save in self._by_vm[source] if save.vcpu == writes.vcpu and eligible(writes, save)]
        if elsewhere and saved and not alone:
            near = self._choose(writes, elsewhere)
            if chosen is None or is_exact(writes, near):
                return self._together(near, saved, writes.end)
        if not from_source and saved and writes.fresh:  # it has the state of a vCPU of yet another VM
            return saved[-1]
        return chosen or self._choose(writes, from_source or fits)

    def _choose(self, writes: Writes, fits: Sequence[Fit]) -> Save:
        return choose(writes, fits, self._by_vm[source_of(fits[0])])

    def _together(self, near: Save, saves: Sequence[Save], before: int) -> Save | None:
        """Of the saves of one vCPU the one that belongs to a save of another vCPU of its VM."""
        passes = moments(self._by_vm[near.from_run, near.vm], before=before)
        of_near = [moment for moment in passes if any(save is near for save in moment.get(near.vcpu, ()))]
        together = {id(save) for moment in of_near for turn in moment.values() for save in turn}
        found = [save for save in saves if id(save) in together] or saves
        return min(found, key=lambda save: abs(save.first_event - near.last_event), default=None)

    def _agree(self, restored: list[Writes], source: Source, pairs: dict[int, Save]) -> list[Moment]:
        """The passes over the source's vCPUs that were restored, by the vCPUs that equal a save.

        A vCPU that equals none was restored from those passes, too, unless it is nearer to another save.
        """
        if len({writes.vcpu for writes in restored if writes.fresh}) < 2:
            return []
        paired = [writes for writes in restored if writes.fresh and id(writes) in pairs]
        last = max((of.last.number for of in restored if of.fresh and of.last is not None), default=0)
        passes = moments(self._by_vm[source], before=last)
        if len(passes) < 2:
            return passes
        saves = [save for moment in passes for turn in moment.values() for save in turn]
        equal = {id(of): [save for save in saves if is_exact(of, save)] for of in paired}
        best = agreed(passes, equal.values()) or agreed(passes, [[pairs[id(of)]] for of in paired])
        for writes in paired:
            pair = pairs[id(writes)]
            if any(save.vcpu == pair.vcpu for save in equal[id(writes)]):
                continue
            allowed = of_vcpu(best, pair.vcpu)
            fits = [found for found in self._all[id(writes)] if any(found.save is save for save in allowed)]
            if fits:
                pairs[id(writes)] = _nearer(writes, self._choose(writes, fits), pair)
            elif allowed and any(pair is save for save in saves) and not any(pair is save for save in allowed):
                # another vCPU's state, of the same pass
                pairs[id(writes)] = allowed[-1]
        return best

    def _add_siblings(
        self,
        restored: list[Writes],
        source: Source,
        found: dict[int, Save],
        passes: list[Moment],
        *,
        tells: bool,
    ) -> None:
        """The other vCPUs of a restored VM: too little was written to them to say so, or nothing at all."""
        paired = [(writes, found[id(writes)]) for writes in restored if id(writes) in found]
        if any(not writes.fresh for writes, _ in paired):
            self._add_rolled_back(restored, source, found)
        near = max((save for of, save in paired if of.fresh), key=lambda save: save.first_event, default=None)
        if near is None:
            return
        done = {writes.vcpu for writes, _ in paired if writes.fresh}
        for writes in restored:
            if writes.vcpu in done or not writes.fresh:
                continue
            save = self._restored_little(writes, source, passes) or self._forgotten(writes, source, near, passes)
            if save is not None and (tells or was_entered_since(writes, save)):
                done.add(writes.vcpu)
                found[id(writes)] = save

    def _tells(self, writes: Writes, source: Source) -> bool:
        """Whether a vCPU got values of the source that INIT does not give: its VM was not just set up once more."""
        fits = (found for found in self._fits[id(writes)] if source_of(found) == source)
        return any(found.alike_ids >= FEW for found in fits)

    def _add_rolled_back(self, restored: list[Writes], source: Source, found: dict[int, Save]) -> None:
        """The other vCPUs of a VM that was rolled back in place meanwhile, if they were dealt with, too."""
        back = [writes for writes in restored if id(writes) in found and not writes.fresh]
        for writes in restored:
            if writes.fresh or not writes.entered or id(writes) in found or source != ("", writes.vm):
                continue
            if not any(of.vcpu != writes.vcpu and of.first < writes.end and writes.first < of.end for of in back):
                continue
            save = self._restored_little(writes, source, ())
            if save is not None:
                found[id(writes)] = save

    def _restored_little(self, writes: Writes, source: Source, passes: Sequence[Moment]) -> Save | None:
        """The save of a vCPU to which little was written, or of a guest that is nearly all zero."""
        shapes = [shape for shape in self._shapes if (shape.save.from_run, shape.save.vm) == source]
        shapes = [shape for shape in shapes if shape.save.vcpu == writes.vcpu and eligible(writes, shape.save)]
        known = {id(found.save): found for found in self._all[id(writes)]}
        fits = (known.get(id(shape.save)) or fit(writes, shape) for shape in shapes)
        likely = [found for found in fits if found is not None and is_likely(writes, found)]
        together = of_vcpu(passes, writes.vcpu)
        passing = [found for found in likely if any(found.save is save for save in together)]
        if not likely:
            return None
        chosen = self._choose(writes, likely)
        candidates = passing or likely
        if len(candidates) > 1 and all(found.coverage < HALF for found in candidates):
            self.unsure[id(writes)] = [found.save for found in candidates]
        if not passing:
            return chosen
        of_pass = self._choose(writes, passing)
        return _nearer(writes, of_pass, chosen) if _tells_apart(writes, of_pass, chosen) else of_pass

    def _forgotten(self, writes: Writes, source: Source, near: Save, passes: Sequence[Moment]) -> Save | None:
        """The save of a vCPU to which nothing was restored; None if it was not there when the others were saved."""
        if len(writes.attempts) >= FEWEST_WRITES or not writes.entered:
            return None
        latest = _latest(writes, source)
        if passes:
            saved = [save for save in of_vcpu(passes, writes.vcpu) if save.first_event < latest]
            if len(saved) > 1:
                self.unsure[id(writes)] = [*saved]
            return saved[-1] if saved else None
        saved = [save for save in self._by_vm[source] if save.vcpu == writes.vcpu and save.first_event < latest]
        return self._together(near, saved, latest)


def _latest(writes: Writes, source: Source) -> int:
    """The number of the event before which a save of a VM was made that may have been meant."""
    return writes.start if source == ("", writes.vm) else writes.end  # a rollback after another INIT


def _without(fits: list[Fit], left_out: Set[int]) -> list[Fit]:
    return [found for found in fits if id(found.save) not in left_out]


def _nearer(writes: Writes, save: Save, other: Save) -> Save:
    """The save that a vCPU differs less from, the first of equally near ones."""
    return save if save is other or differing(writes, save) <= differing(writes, other) else other


def _tells_apart(writes: Writes, save: Save, other: Save) -> bool:
    """Whether a register was written or looked at in which two saves differ."""
    concerned = writes.evidence.keys() | writes.looks.keys()
    return any(id in concerned and not same(id, value, other.state.get(id)) for id, value in save.state.items())
