# SPDX-License-Identifier: MIT
"""From which save a vCPU was restored: decided by the shape of what was written, then by VM, by vCPU, by values.

docs/explanation/verdicts.md is the prose of this file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from kvmabi.order.saves import Save
from kvmabi.order.values import RUNNING, VLS, group_of, is_cut, is_reversed, same
from kvmabi.order.writes import FEWEST_WRITES, Attempt, Writes

HALF, MOST, NEARLY_ALL = 0.5, 0.8, 0.9
"""Shares of a save's groups of registers that must have been attempted for different conclusions."""
FEWEST_ALIKE = 16
"""How many registers with telling values must agree where something disagrees, or where much was not attempted."""
KNOWN_IDS = 0.75
"""The share of the attempted IDs that the save must have read."""
FEW = 4
"""A save that so many groups of a sample disagree with, for each that agrees, is not looked at further."""
NEARLY_NONE = 1.0
"""How many groups of registers are given other values by a few edits."""
OWN_VALUES = 0.25
"""The share of the values that only one save of a vCPU has, which marks it as the one restored."""
MOST_OTHERS = 8
"""How many other saves of a vCPU stale values are looked for in."""
SHORTEST_TELLING = 2
"""Bytes of the shortest value that is recognised in another register."""


class Fit(NamedTuple):
    """How well what was written fits a save; shares and weights count groups of registers, such as all of z0-z31.

    ``coverage`` is the share of the save's groups that were attempted, or looked at and found equal, ``ids`` the same
    share of its registers; ``written`` is the share of groups attempted. ``alike`` is the weight of telling values that
    were written as saved or nearly, ``left`` that of those that were written before the save and left alone,
    ``alike_ids`` the number of both, ``unlike`` the weight of other values,
    ``superseded`` that of all registers whose last value is another one.
    """

    save: Save
    coverage: float
    ids: float
    written: float
    left: float
    alike: float
    alike_ids: int
    unlike: float
    superseded: float

    @property
    def score(self) -> float:
        """By which the VM that was restored is chosen."""
        return self.left + self.alike - self.unlike

    @property
    def mismatch(self) -> float:
        """The weight of the registers whose last value is not the saved one."""
        return max(self.unlike, self.superseded)


class Shape(NamedTuple):
    """A save as restores are compared with it.

    ``weights`` of the registers that the VMM knows of it: every group has 1. ``groups`` is the number of groups,
    ``telling`` the values that are recognised in another register, ``others`` the other saves of the same vCPU.
    """

    save: Save
    weights: dict[int, float]
    groups: float
    telling: frozenset[bytes]
    others: list[Save]


def shape_of(save: Save, saves: Iterable[Save] = ()) -> Shape:
    """The shape of a save, one of ``saves``."""
    sizes = Counter(map(group_of, save.known))
    values = Counter(value.rstrip(b"\0") for value in save.state.values())
    telling = frozenset(value for value, count in values.items() if count == 1 and len(value) >= SHORTEST_TELLING)
    weights = {id: 1 / sizes[group_of(id)] for id in save.known}
    others = [other for other in saves if other.place == save.place and other is not save][-MOST_OTHERS:]
    return Shape(save, weights, float(len(sizes) or 1), telling, others)


def fit(writes: Writes, shape: Shape) -> Fit | None:
    """How well what was written fits a save; None if much of it cannot come from there."""
    save, weights = shape.save, shape.weights
    if not _may_fit(writes, shape):
        return None
    attempts = writes.evidence
    later = [id for id, attempt in attempts.items() if attempt.event.number > save.after]
    if not later:
        return None
    if sum(id in weights for id in later) < KNOWN_IDS * len(later):
        return None
    written = looked = left = alike = unlike = superseded = 0.0
    alike_ids = 0
    covered: list[int] = []
    for id, attempt in attempts.items():
        weight = weights.get(id)
        if weight is None:
            continue
        if attempt.event.number <= save.after:  # before the save: the VMM left it, if it is equal
            saved = save.state.get(id, b"")
            if same(id, saved, attempt.written) and same(id, saved, writes.state.get(id)):
                looked += weight
                covered.append(id)
                if any(saved) and not same(id, saved, writes.base.get(id)):
                    left += weight
                    alike_ids += 1
            continue
        written += weight
        covered.append(id)
        likeness = _likeness(id, attempt, writes, shape)
        if likeness > 0:
            alike += weight
            alike_ids += 1
        elif likeness < 0:
            unlike += weight
        if _is_superseded(id, attempt, save):
            superseded += weight
    for id, event in writes.looked.items() if not save.from_run else ():
        if id not in weights or id in attempts or event.data is None:
            continue
        if same(id, save.state.get(id, b""), event.data):
            looked += weights[id]
            covered.append(id)
    fixed = frozenset() if writes.fresh else VLS
    # a save of much of the state may be restored without what was read before it
    read = _share(covered, save.reads.keys() - fixed) if len(save.reads) >= HALF * len(save.state) else 0.0
    coverage, ids = max(read, (written + looked) / shape.groups), max(read, _share(covered, weights.keys() - fixed))
    return Fit(save, coverage, ids, written / shape.groups, left, alike, alike_ids, unlike, superseded)


def _share(covered: Iterable[int], of: Set[int]) -> float:
    return sum(id in of for id in covered) / (len(of) or 1)


def _is_superseded(id: int, attempt: Attempt, save: Save) -> bool:
    """Whether the last value that was written is not the saved one."""
    saved, last = save.state.get(id), attempt.written
    return saved is not None and last is not None and id not in RUNNING and not same(id, saved, last)


def _may_fit(writes: Writes, shape: Shape) -> bool:
    """A look at one register of each group that was written: whether the whole is worth comparing."""
    alike = unlike = 0
    for id, attempt in writes.sample.items():
        if id in shape.weights:
            likeness = _likeness(id, attempt, writes, shape)
            alike += likeness > 0
            unlike += likeness < 0
    return unlike < FEW or alike * FEW >= unlike


def _likeness(id: int, attempt: Attempt, writes: Writes, shape: Shape) -> int:
    """1: the value written is the saved one or nearly, and telling; -1: it is another one; 0: it says nothing."""
    save = shape.save
    saved = save.value_read(id)
    if id in RUNNING or saved is None:
        return 0
    if attempt.once(id, saved, save.after) is not None:
        return int(any(saved) and not same(id, saved, writes.base.get(id)))
    tried = attempt.tried
    if tried is None:
        return 0
    if same(id, saved, tried):
        return int(any(saved))
    if same(id, tried, writes.base.get(id)):
        return -1
    nearly = is_cut(saved, tried) or is_reversed(saved, tried) or tried.rstrip(b"\0") in shape.telling
    return 1 if nearly or _is_stale(id, attempt, writes, shape) else -1


def _is_stale(id: int, attempt: Attempt, writes: Writes, shape: Shape) -> bool:
    """Whether the value is the one of an older save of the same vCPU."""
    tried = attempt.tried
    if not tried or not any(tried):
        return False
    number = attempt.event.number
    older = (other for other in shape.others if other.first_event < min(number, shape.save.first_event))
    return any(other.state.get(id) == tried and eligible(writes, other) for other in older)


def is_exact(writes: Writes, save: Save) -> bool:
    """Whether the vCPU has the state of the save, registers that run by themselves aside."""
    return all(same(id, value, writes.state.get(id)) for id, value in save.state.items())


def _differing(writes: Writes, save: Save) -> int:
    """How many registers do not have the value of the save."""
    return sum(not same(id, value, writes.state.get(id)) for id, value in save.state.items())


def accepts(writes: Writes, found: Fit) -> bool:
    """Whether what was written is a restore of this save, rather than something else with some equal values."""
    own = found.save.place == writes.place and not found.save.from_run
    if len(writes.evidence) < FEWEST_WRITES and not (own and found.ids >= 1):
        return False
    if found.unlike:  # with unlike == 0 enough is alike, or nearly all was attempted
        agrees = found.alike_ids >= FEWEST_ALIKE and found.alike >= found.unlike
    else:
        agrees = found.alike_ids >= FEWEST_ALIKE or found.coverage >= MOST
    if not agrees:
        return False
    if not writes.entered and not writes.gave_up:
        return _is_complete(found)
    if not writes.fresh:
        if own and not found.save.is_large:
            return is_exact(writes, found.save)  # a debugger reads and writes back a few
        enough = found.written >= (HALF if own else NEARLY_ALL) or (own and found.ids >= 1)
        return enough or (own and is_exact(writes, found.save))
    return found.coverage >= HALF or not (found.unlike or found.save.from_run)


def _is_complete(found: Fit) -> bool:
    """Whether a restore that the guest never saw was done: most of a save of much of the state was attempted."""
    return found.save.is_large and found.coverage >= MOST and found.ids >= MOST


def near_fit(writes: Writes, saves: Sequence[Save]) -> Save | None:
    """The save that a vCPU was given many values of, and no others, though not enough for a restore of it."""
    fits = (fit(writes, shape_of(save)) for save in saves if eligible(writes, save))
    near = [
        found
        for found in fits
        if found is not None
        and not found.unlike
        and (found.alike_ids >= FEW or found.save.place == writes.place)
        and (found.coverage >= HALF or (writes.fresh and len(writes.attempts) >= FEWEST_ALIKE))
        and found.save.is_large
    ]
    return max(near, key=lambda found: found.score).save if near else None


def eligible(writes: Writes, save: Save) -> bool:
    """Whether a save was made early enough: before the last write, of the vCPU itself before what was written began.

    Another run's save can be restored after INIT only.
    """
    if save.from_run:
        return writes.fresh
    if save.place == writes.place:
        return save.first_event < writes.start
    last = writes.last.number if writes.last is not None else writes.end
    return save.first_event < last


def is_dump(writes: Writes, save: Save) -> bool:
    """Whether a save is of a vCPU while it was being written to: a look at what was restored, before it ran."""
    return save.place == writes.place and not save.from_run and writes.start < save.first_event <= writes.end


class Pairing:
    """The pairs of what was written (``writes``) and the saves that it restored."""

    def __init__(self, saves: Iterable[Save], writes: Sequence[Writes]) -> None:
        self._by_vm: dict[tuple[str, int], list[Save]] = defaultdict(list)
        self._shapes: list[Shape] = []
        for save in saves:
            if save.label is None:
                self._by_vm[save.from_run, save.vm].append(save)
        for of_vm in self._by_vm.values():
            self._shapes += [shape_of(save, of_vm) for save in of_vm]
        self._writes = writes
        self._all = {id(of): self._all_fits(of) for of in writes}
        self._fits = {id(of): [found for found in self._all[id(of)] if accepts(of, found)] for of in writes}

    def pairs(self) -> dict[int, Save]:
        """The save that each was restored from, by ``id()`` of the writes, if it is a restore."""
        found: dict[int, Save] = {}
        for restored in self._rounds():
            found |= self._pairs_of_vm(restored)
        return found

    def _rounds(self) -> Iterable[list[Writes]]:
        """What was written to the vCPUs of one VM, from one INIT of them to the next after they have run."""
        rounds: dict[tuple[int, int], list[Writes]] = defaultdict(list)
        entries: dict[int, list[int]] = defaultdict(list)
        latest: dict[tuple[int, int], int] = {}
        for writes in self._writes:
            if writes.entered:
                entries[writes.vm].append(writes.end)
        for writes in self._writes:
            if writes.fresh:
                latest[writes.place] = sum(entry < writes.start for entry in entries[writes.vm])
            rounds[writes.vm, latest.get(writes.place, 0)].append(writes)
        return rounds.values()

    def _all_fits(self, writes: Writes) -> list[Fit]:
        if not writes.evidence:
            return []
        fits = (fit(writes, shape) for shape in self._shapes if eligible(writes, shape.save))
        return [found for found in fits if found is not None]

    def _pairs_of_vm(self, restored: list[Writes]) -> dict[int, Save]:
        """The pairs of one VM: the VM that it was restored from first, then each vCPU by its index."""
        source = self._source_vm(restored)
        if source is None:
            return {}
        alone = len({writes.vcpu for writes in restored}) == 1
        if any(of.wiped is not None and 0 < len(of.attempts) < FEWEST_WRITES for of in restored):
            restored = [of for of in restored if of.wiped is None]  # set up anew after what was restored: a reset
        found = {id(of): save for of in restored if (save := self._save_of(of, source, alone=alone)) is not None}
        self._add_siblings(restored, source, found)
        return found

    def _source_vm(self, restored: list[Writes]) -> tuple[str, int] | None:
        """The VM whose saves fit best; of this run first, and the earliest of equal ones."""
        scores: dict[tuple[str, int], float] = defaultdict(float)
        differing: dict[tuple[str, int], int] = defaultdict(int)
        for writes in restored:
            best: dict[tuple[str, int], Fit] = {}
            for found in self._fits[id(writes)]:
                vm = found.save.from_run, found.save.vm
                if vm not in best or found.score > best[vm].score:
                    best[vm] = found
            for vm, found in best.items():
                scores[vm] += found.score
                differing[vm] += _differing(writes, found.save) if len(best) > 1 else 0
        if not scores:
            return None
        most = max(scores.values()) - NEARLY_NONE
        alike = [vm for vm, score in scores.items() if score >= most]
        return max(alike, key=lambda vm: (vm[0] == "", -differing[vm], -vm[1]))

    def _save_of(self, writes: Writes, source: tuple[str, int], *, alone: bool) -> Save | None:
        fits = self._fits[id(writes)]
        if not fits:
            return None
        from_source = [found for found in fits if (found.save.from_run, found.save.vm) == source]
        by_index = [found for found in from_source if found.save.vcpu == writes.vcpu]
        if by_index:  # a restore of this vCPU: any save of it that was attempted as a whole may be the one
            place = by_index[0].save.place
            others = (found for found in self._all[id(writes)] if found.save.place == place and not found.save.from_run)
            by_index += [found for found in others if found.coverage >= MOST and found not in by_index]
        elsewhere = [found for found in from_source if found.save.vcpu != writes.vcpu]
        chosen = choose(writes, by_index) if by_index else None
        if chosen is not None and (alone or not elsewhere or is_exact(writes, chosen)):
            return chosen
        saved = [save for save in self._by_vm[source] if save.vcpu == writes.vcpu and eligible(writes, save)]
        if elsewhere and saved and not alone:
            near = choose(writes, elsewhere)
            if chosen is None or is_exact(writes, near):
                return self._together(near, saved)
        if not from_source and saved and writes.fresh:  # it has the state of a vCPU of yet another VM
            return saved[-1]
        return chosen or choose(writes, from_source or fits)

    def _together(self, near: Save, saves: Sequence[Save]) -> Save | None:
        """Of the saves of one vCPU the one that belongs to a save of another vCPU of its VM."""
        others = [save for save in self._by_vm[near.from_run, near.vm] if save.place == near.place and save.is_large]
        large = [save for save in saves if save.is_large]
        if near in others and len(large) == len(others):  # all vCPUs are saved each time
            return large[others.index(near)]
        return min(saves, key=lambda save: abs(save.first_event - near.last_event), default=None)

    def _add_siblings(self, restored: list[Writes], source: tuple[str, int], found: dict[int, Save]) -> None:
        """The other vCPUs of a restored VM: too little was written to them to say so, or nothing at all."""
        paired = [(writes, found[id(writes)]) for writes in restored if id(writes) in found]
        if any(not writes.fresh for writes, _ in paired):
            self._add_rolled_back(restored, source, found)
        near = max((save for of, save in paired if of.fresh), key=lambda save: save.first_event, default=None)
        if near is None:
            return
        done = {writes.vcpu for writes, _ in paired}
        for writes in restored:
            if writes.vcpu in done or not writes.fresh:
                continue
            save = self._restored_little(writes, source) or self._forgotten(writes, source, near)
            if save is not None:
                done.add(writes.vcpu)
                found[id(writes)] = save

    def _add_rolled_back(self, restored: list[Writes], source: tuple[str, int], found: dict[int, Save]) -> None:
        """The other vCPUs of a VM that was rolled back in place, if most of a save was written to them."""
        for writes in restored:
            if writes.fresh or not writes.entered or id(writes) in found or source != ("", writes.vm):
                continue
            save = self._restored_little(writes, source)
            if save is not None:
                found[id(writes)] = save

    def _restored_little(self, writes: Writes, source: tuple[str, int]) -> Save | None:
        """The save of a vCPU to which little was written, or of a guest that is nearly all zero."""
        shapes = [shape for shape in self._shapes if (shape.save.from_run, shape.save.vm) == source]
        shapes = [shape for shape in shapes if shape.save.vcpu == writes.vcpu and eligible(writes, shape.save)]
        fits = [found for shape in shapes if (found := fit(writes, shape)) is not None]
        likely = [found for found in fits if _is_likely(writes, found)]
        return choose(writes, likely) if likely else None

    def _forgotten(self, writes: Writes, source: tuple[str, int], near: Save) -> Save | None:
        """The save of a vCPU to which nothing was restored."""
        if len(writes.attempts) >= FEWEST_WRITES or not writes.entered:
            return None
        saved = [save for save in self._by_vm[source] if save.vcpu == writes.vcpu and save.last_event < writes.end]
        if source == ("", writes.vm):  # a rollback after another INIT
            saved = [save for save in saved if save.last_event < writes.start]
        save = self._together(near, saved)
        if save is None:
            return None
        together = [other for other in self._by_vm[source] if other.place == near.place and other.is_large]
        together.append(near)
        nearest = min(together, key=lambda other: abs(other.first_event - save.first_event))
        return save if nearest is near else None  # else it is of an older checkpoint, and this one lacks the vCPU


def _is_likely(writes: Writes, found: Fit) -> bool:
    """Whether a vCPU of a VM that was restored was restored, too: less must speak for it."""
    if not writes.entered:
        return _is_complete(found)
    if not writes.fresh:
        return found.written >= HALF
    return found.coverage >= HALF or not found.unlike


def choose(writes: Writes, fits: Sequence[Fit]) -> Save:
    """Among saves of one vCPU: the newest that the vCPU equals, else the newest whose own values were written."""
    if len(fits) == 1:
        return fits[0].save
    clear = [found for found in fits if not found.unlike and not found.superseded]
    fits = [found for found in clear if found.alike_ids >= FEWEST_ALIKE] or fits
    least = min(found.mismatch for found in fits)
    if least <= NEARLY_NONE:
        fits = [found for found in fits if found.mismatch <= FEW * least + NEARLY_NONE]
    fits = [found for found in fits if found.coverage >= HALF] or fits
    newest_first = sorted(fits, key=lambda found: (found.save.from_run == "", found.save.last_event), reverse=True)
    exact = next((found.save for found in newest_first if is_exact(writes, found.save)), None)
    if exact is not None:
        return exact
    shares = [(_own_share(writes, found.save, fits), found) for found in newest_first]
    owned = next((found.save for share, found in shares if share >= OWN_VALUES), None)
    return owned or max(shares, key=lambda share: (share[0], share[1].score))[1].save


def _own_share(writes: Writes, save: Save, fits: Sequence[Fit]) -> float:
    """The share of a save's own values (no other save has them) that were written last: of groups or of registers."""
    own = written = 0.0
    own_ids = written_ids = 0
    for id, weight in shape_of(save).weights.items():
        value = save.state.get(id)
        if value is None or id in RUNNING:
            continue
        if any(same(id, value, other.save.state.get(id)) for other in fits if other.save is not save):
            continue
        own += weight
        own_ids += 1
        attempt = writes.attempts.get(id)
        last = attempt.last if attempt is not None else None
        if last is None or last.data is None or last.number <= save.after:
            continue
        if same(id, value, last.data) or is_cut(value, last.data) or is_reversed(value, last.data):
            written += weight
            written_ids += 1
    return max(written / own, written_ids / own_ids) if own_ids else 0.0
