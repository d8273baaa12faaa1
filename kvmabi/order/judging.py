# SPDX-License-Identifier: MIT
"""Judges what was written to vCPUs: declared pairs, inferred pairs, and what one vCPU's own events show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from kvmabi import regid
from kvmabi.events import Event, Origin
from kvmabi.order.causes import CAUSES, Severity
from kvmabi.order.choosing import choose
from kvmabi.order.comparing import Comparison, Difference, writes_time
from kvmabi.order.controllers import Sets, lost
from kvmabi.order.findings import LINES_SHOWN, Finding, Loss, Pair
from kvmabi.order.fitting import eligible, fit, is_dump, is_exact, shape_of, unequal
from kvmabi.order.pairing import Pairing
from kvmabi.order.restores import FEWEST_ALIKE, MOST
from kvmabi.order.rounds import is_set_up_anew, is_written_back, registers_set, rounds
from kvmabi.order.saves import Save
from kvmabi.order.values import group_of, name_of, same, unchanged
from kvmabi.order.verdict import NotJudged, Place, Verdict
from kvmabi.order.writes import FEWEST_WRITES, Writes

UNSEEN = "declare the source (--pair), or save with --saves DIR in the run that saves"
SAVED, SVCR_WRITTEN, REFUSED, ENTERED = "saved at", "svcr written at", "first refused at", "entered at"
SHOWN_FOR = {
    SAVED: {"not-saved", "torn"},
    SVCR_WRITTEN: {"mode", "destroyed", "za-off", "absent"},
    REFUSED: {"refused", "vls-late", "vls-late-equal", "za-off", "absent"},
    ENTERED: {"init", "vcpu-forgotten", "wrong-vcpu"},
}
"""The causes about which the origin of an ioctl says something."""
DECLARE = "declare the source (--pair)"
EDIT = "write an edit after its saved value"
CAUSE_ORDER = {cause: place for place, cause in enumerate(CAUSES)}


class Judge:
    """Forms a verdict.

    ``saves`` are this run's, ``other_saves`` returns other runs', ``pairs`` are the declared ones.
    """

    def __init__(
        self,
        saves: Iterable[Save],
        other_saves: Callable[[], Iterable[Save]],
        pairs: Mapping[Place, Place],
        ignored: frozenset[int],
        counter_hz: int,
    ) -> None:
        self._saves = list(saves)
        self._other_saves = other_saves
        self._pairs = pairs
        self._ignored = ignored
        self._counter_hz = counter_hz
        self._pairing = Pairing((), ())
        self._resolved: set[Place] = set()
        self.dumps: set[int] = set()
        self._timed: set[int] = set()
        self._controllers: set[Sets] = set()
        self._reset: set[Writes] = set()
        self._given_up: set[int] = set()
        self._findings: list[Finding] = []
        self._judged: list[Pair] = []
        self._not_judged: list[NotJudged] = []

    def verdict(
        self, writes: Sequence[Writes], set_up: Mapping[tuple[int, int], int], events: int, forgotten: int
    ) -> Verdict:
        """The verdict on ``writes``; ``set_up`` is how many writes every vCPU had, ``forgotten`` counts lost ones."""
        declared = {id(of): save for of in writes if (save := self._declared(of)) is not None}
        open_writes = [of for of in writes if id(of) not in declared and of.restores is None]
        inferred = self._inferred(open_writes)
        restored = [(of, save) for of in writes if (save := declared.get(id(of)) or inferred.get(id(of))) is not None]
        self._reset = {of for together in rounds(writes) if is_set_up_anew(together) for of in together}
        self._given_up = {of.vm for of in writes if of.gave_up}
        self._timed = {of.vm for of, save in restored if writes_time(of, save, self._counter_hz)}
        for of in writes:
            save = declared.get(id(of)) or inferred.get(id(of))
            if save is not None:
                self._judge_pair(of, save, declared=id(of) in declared)
            else:
                self._judge_alone(of)
        self._count_the_rest(writes, set_up, forgotten)
        return Verdict(events, tuple(self._findings), tuple(self._judged), tuple(self._not_judged), len(self._saves))

    # --- pairs

    @cached_property
    def _others(self) -> list[Save]:
        """The saves of other runs, read when they are needed."""
        return list(self._other_saves())

    def _inferred(self, writes: list[Writes]) -> dict[int, Save]:
        """The saves that were restored, by ``id()`` of the writes: of this run, or else of other runs."""
        writes = [of for of in writes if not is_written_back(of, self._saves)]
        self._pairing = Pairing(self._saves, writes)
        inferred = self._pairing.pairs()
        left = [of for of in writes if id(of) not in inferred or self._may_be_of_another_run(of, inferred[id(of)])]
        if any(len(of.evidence) >= FEWEST_WRITES for of in left) and self._others:
            others = Pairing(self._others, left).pairs()
            for of in left:
                save = others.get(id(of))
                if save is not None and (id(of) not in inferred or is_exact(of, save)):
                    inferred[id(of)] = save
        self._replace_dumps(writes, inferred)
        return inferred

    def _may_be_of_another_run(self, writes: Writes, save: Save) -> bool:
        """Whether a vCPU differs from a save of this run in nothing but values that the VMM wrote, and are there."""
        if is_exact(writes, save):
            return False
        causes = {difference.cause for difference in Comparison(writes, save).differences()}
        return all(CAUSES[cause].severity is Severity.CHANGED for cause in causes)

    def _replace_dumps(self, writes: list[Writes], inferred: dict[int, Save]) -> None:
        """Prefers a source to a look at what was restored from it, if the vCPU fits both equally well."""
        restored = [of for of in writes if id(of) in inferred and of.fresh and inferred[id(of)].place != of.place]
        self.dumps = {id(save) for save in self._saves if any(is_dump(of, save) for of in restored)}
        paired = [of for of in writes if id(of) in inferred]
        doubtful = [of for of in paired if any(is_dump(looked_at, inferred[id(of)], of) for looked_at in restored)]
        if not doubtful:
            return
        looks = {
            id(save)
            for save in self._saves
            if any(is_dump(looked_at, save, of) for looked_at in restored for of in doubtful)
        }
        better = self._pairing.without(looks).pairs()
        others = Pairing(self._others, doubtful).pairs() if self._others else {}
        for of in doubtful:
            other = better.get(id(of)) or others.get(id(of))
            if other is not None and _told(of, other) >= _told(of, inferred[id(of)]):
                inferred[id(of)] = other

    def _declared(self, writes: Writes) -> Save | None:
        """The save that a pair which the VMM or the user declared names."""
        if writes.restores is not None:
            label = writes.restores
            here = next((save for save in reversed(self._saves) if save.label == label), None)
            return here or next((save for save in reversed(self._others) if save.label == label), None)
        source = self._pairs.get((writes.vm, writes.vcpu)) or self._pairs.get((writes.vm, None))
        if source is None or not writes.fresh:
            return None
        vm, vcpu = source
        index = writes.vcpu if vcpu is None else vcpu
        saves = [save for save in self._saves if save.place == (vm, index) and save.first_event < writes.end]
        self._resolved |= {(writes.vm, writes.vcpu), (writes.vm, None)} if saves else set()
        fits = [found for save in saves if (found := fit(writes, shape_of(save))) is not None]
        if fits:
            return choose(writes, fits, saves)
        return saves[-1] if saves else None

    def _judge_pair(self, writes: Writes, save: Save, *, declared: bool) -> None:
        others = [other for other in self._saves if other.vm == save.vm and eligible(writes, other)]
        comparison = Comparison(writes, save, others, 0 if writes.vm in self._timed else self._counter_hz)
        differences = [difference for difference in comparison.differences() if self._counts(difference)]
        notes: tuple[str, ...] = ()
        if writes.gave_up:
            differences, notes = self._until_given_up(comparison, differences)
        elif writes.vm in self._given_up and not writes.entered:  # the VMM gave up at another vCPU of the VM
            differences = [difference for difference in differences if difference.loss.id in writes.attempts]
        differences = differences if declared else self._sure(writes, save, differences)
        pair = Pair(
            writes.vm,
            writes.vcpu,
            save.vm,
            save.vcpu,
            save.first_event,
            save.last_event,
            writes.seconds - save.seconds,
            len(save.state),
            declared,
            len(comparison.edits.certain),
            tuple(comparison.edits.certain),
            save.from_run,
        )
        self._judged.append(pair)
        differences += [of for of in self._certain(writes) if _is_beyond(of, writes, save)]
        origins = _origins(writes, save)
        self._findings += _findings(writes, differences, pair, notes, origins)
        self._judge_controllers(writes, save, pair)
        if comparison.edits.doubtful:
            names = regid.ranges(comparison.edits.doubtful)
            why = f"{names}: written with another value after the saved one, or as the last of the restore"
            self._not_judged.append(NotJudged(*writes.place, len(writes.attempts), why, EDIT, is_restore=True))

    def _judge_controllers(self, writes: Writes, save: Save, pair: Pair) -> None:
        """What the VM lost of the state of its interrupt controllers, once for all its vCPUs.

        Of saves with equal registers the one was meant that the controllers fit best.
        """
        sets = writes.controllers
        if sets in self._controllers:
            return
        self._controllers.add(sets)
        of_save = [*lost(save.controllers, sets)]
        if not of_save:
            return
        others = [other for other in self._saves if other.controllers.values]
        equal = [[*lost(other.controllers, sets)] for other in others if unchanged(other.state, save.state)]
        found: dict[str, list[tuple[Loss, Event | None]]] = {}
        for cause, loss, event in min([of_save, *equal], key=len):
            found.setdefault(cause, []).append((loss, event))
        for cause in sorted(found, key=CAUSE_ORDER.__getitem__):
            losses, events = zip(*found[cause], strict=True)
            lines = [str(event) for event in events if event is not None]
            self._findings.append(Finding(cause, writes.vm, None, losses, pair, tuple(lines[-LINES_SHOWN:])))

    def _sure(self, writes: Writes, pair: Save, differences: list[Difference]) -> list[Difference]:
        """The differences from every save that may have been meant; the other registers are named as not judged."""
        meant = self._pairing.unsure.get(id(writes), ())
        if not any(save is pair for save in meant):
            return differences
        lost = [set() if save is None else unequal(writes, save) - self._ignored for save in meant]
        unsure = frozenset[int]().union(*lost) - frozenset.intersection(*map(frozenset, lost))
        if not unsure:
            return differences
        names = regid.ranges(name_of(id) for id in sorted(unsure))
        saves = {id(save) for save in meant if save is not None}
        perhaps = ", or none," if None in meant else ""
        why = f"{names}: which of {len(saves)} saves{perhaps} was meant is not to be seen"
        self._not_judged.append(NotJudged(*writes.place, len(writes.attempts), why, DECLARE, is_restore=True))
        return [difference for difference in differences if difference.loss.id not in unsure]

    def _counts(self, difference: Difference) -> bool:
        return difference.loss.id not in self._ignored

    def _until_given_up(
        self, comparison: Comparison, differences: list[Difference]
    ) -> tuple[list[Difference], tuple[str, ...]]:
        """What was refused, and in a line what was not reached."""
        refused = comparison.writes.refusal
        assert refused is not None
        reached = [difference for difference in differences if refused in difference.shown]
        left = len(differences) - len(reached)
        if not reached and refused.register is not None and refused.register not in self._ignored:
            reached = [comparison.refusal(refused.register, refused)]
        note = f"the VMM gave up here: {left} registers of the save were not reached or depend on it"
        return reached, (note,) if left else ()

    # --- one vCPU alone

    def _judge_alone(self, writes: Writes) -> None:
        near = self._pairing.near(writes)
        if writes.entered and not writes.explores:
            certain = [of for of in self._certain(writes) if near is None or not _is_as_in(of, writes, near)]
            self._findings += _findings(writes, certain, None, (), _origins(writes))
        if writes.restores is not None:
            why = f"declared to be restored from the save {writes.restores}, which was not declared"
            self._not_judged.append(NotJudged(*writes.place, len(writes.attempts), why, is_restore=True))
            return
        if near is not None:
            self._not_judged.append(_nearly(writes, near))
        elif len(writes.evidence) >= FEWEST_WRITES:
            self._not_judged.append(_why_not(writes))

    def _certain(self, writes: Writes) -> Iterator[Difference]:
        """What the guest was entered without, though the VMM wrote it."""
        if not writes.entered:
            return
        comparison = Comparison(writes, Save(writes.vm, writes.vcpu, {}, {}, {}, 0.0))
        for id, attempt in writes.destroyed():
            if id in self._ignored:
                continue
            if attempt.refused is not None:
                yield comparison.refusal(id, attempt.refused)
            else:
                yield comparison.destroyed(id, attempt)
        if writes.wiped is not None and writes not in self._reset and not registers_set(writes):
            for id, undone in writes.wiped.attempts.items():
                written = undone.written
                if written is None or undone.read_back or id in self._ignored:
                    continue
                if not same(id, written, writes.state.get(id)):
                    yield comparison.not_attempted(id)

    # --- the rest

    def _count_the_rest(self, writes: Sequence[Writes], set_up: Mapping[tuple[int, int], int], forgotten: int) -> None:
        """Names the vCPUs of which nothing was said yet, except sources, and pairs that were declared in vain."""
        named = {(pair.vm, pair.vcpu) for pair in self._judged} | {(vcpu.vm, vcpu.vcpu) for vcpu in self._not_judged}
        named |= {(finding.vm, finding.vcpu) for finding in self._findings if finding.vcpu is not None}
        named |= {(pair.source_vm, pair.source_vcpu) for pair in self._judged if not pair.from_run}
        for (vm, vcpu), count in set_up.items():
            if (vm, vcpu) not in named:
                what = f"{count} write{'s' if count != 1 else ''}" if count else "no write"
                self._not_judged.append(NotJudged(vm, vcpu, count, f"set up with {what}, not restored"))
        for restored, source in self._pairs.items():
            if restored not in self._resolved:
                of = f"VM {source[0]}" + (f" vCPU {source[1]}" if source[1] is not None else "")
                why = f"declared to be restored from {of}, of which no save was seen before"
                self._not_judged.append(NotJudged(restored[0], restored[1] or 0, 0, why, is_restore=True))
        if forgotten:
            last = writes[0].end if writes else 0
            why = f"{forgotten} saves or series of writes before event {last} are too many to remember"
            self._not_judged.append(NotJudged(0, 0, 0, why))


def _told(writes: Writes, save: Save) -> float:
    """How much of what was written since a save speaks for it."""
    found = fit(writes, shape_of(save))
    return found.alike - found.unlike if found is not None else 0.0


def _is_as_in(difference: Difference, writes: Writes, save: Save) -> bool:
    """Whether a register has the value of a save, whatever the VMM wrote."""
    id = difference.loss.id
    return id in save.state and same(id, save.state[id], writes.state.get(id))


def _is_beyond(difference: Difference, writes: Writes, save: Save) -> bool:
    """Whether a loss is of a register that the source's mode did not have, and that was refused after the save."""
    attempt = writes.attempts.get(difference.loss.id)
    if difference.cause != "za-off" or attempt is None or attempt.refused is None or difference.loss.id in save.state:
        return False
    return not attempt.good and attempt.refused.number > save.after


def _nearly(writes: Writes, save: Save) -> NotJudged:
    """Why a vCPU that was given many values of a save was not compared with it."""
    source = f"VM {save.vm} vCPU {save.vcpu}, events {save.first_event}-{save.last_event}"
    why = f"{len(writes.evidence)} registers written, many as saved ({source}), not all"
    hint = "declare the source (--pair) if it is a restore"
    return NotJudged(*writes.place, len(writes.evidence), why, hint, is_restore=True)


def _why_not(writes: Writes) -> NotJudged:
    """Why what was written was compared with no save."""
    count = len(writes.evidence)
    groups = {group_of(id) for id in writes.state}
    share = len(groups & {group_of(id) for id in writes.evidence}) / (len(groups) or 1)
    where = writes.vm, writes.vcpu, count
    if writes.explores:
        return NotJudged(*where, f"{count} registers written in no order, many of them over and over: not a restore")
    if share >= MOST / 2 and writes.entered and len(writes.unlike_init) >= FEWEST_ALIKE:
        return NotJudged(*where, f"restored, {count} registers written, from a save that was not seen", UNSEEN, True)
    if not writes.entered:
        return NotJudged(*where, f"{count} registers written, and the guest was never entered")
    return NotJudged(*where, f"{count} registers written that fit no save: set up rather than restored")


def _findings(
    writes: Writes,
    differences: Iterable[Difference],
    pair: Pair | None,
    notes: tuple[str, ...],
    origins: tuple[tuple[str, Origin], ...],
) -> list[Finding]:
    """One finding a cause, the causes in the order of their table."""
    grouped: dict[tuple[int, int, str], list[Difference]] = {}
    for difference in differences:
        grouped.setdefault((CAUSE_ORDER[difference.cause], difference.event, difference.cause), []).append(difference)
    findings = [
        Finding(
            cause,
            writes.vm,
            writes.vcpu,
            tuple(difference.loss for difference in group),
            pair,
            tuple(str(event) for event in group[0].shown[-LINES_SHOWN:]),
            notes,
        )
        for (_, _, cause), group in sorted(grouped.items())
    ]
    return [
        replace(finding, origins=origins if not place else _relevant(finding.cause, origins))
        for place, finding in enumerate(findings)
    ]


def _relevant(cause: str, origins: tuple[tuple[str, Origin], ...]) -> tuple[tuple[str, Origin], ...]:
    """The origins that say something about a cause; the first finding of a vCPU has all of them."""
    return tuple((label, origin) for label, origin in origins if cause in SHOWN_FOR[label])


def _origins(writes: Writes, save: Save | None = None) -> tuple[tuple[str, Origin], ...]:
    """Where in the VMM the ioctls came from that a restore consists of."""
    events = {
        SAVED: save.opened_by if save is not None else None,
        SVCR_WRITTEN: writes.svcr_write,
        REFUSED: writes.refusal,
        ENTERED: writes.run if writes.entered else None,
    }
    asked = ((label, event.origin) for label, event in events.items() if event is not None)
    return tuple((label, origin) for label, origin in asked if origin is not None)
