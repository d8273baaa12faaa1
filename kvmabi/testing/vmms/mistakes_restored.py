# SPDX-License-Identifier: MIT
"""Mistakes in how state is restored: a wrong order, steps that are missing, steps too many."""

from __future__ import annotations

from kvmabi.testing.vmms import families
from kvmabi.testing.vmms.families import CNTVCT, SVCR, VLS, X, family
from kvmabi.testing.vmms.machine import ZA, Save, is_serror_pending, svcr_of, values_of
from kvmabi.testing.vmms.mistake import Mistake, Occasion, indices
from kvmabi.testing.vmms.mistakes_saved import forgettable, some
from kvmabi.testing.vmms.plan import ENTER, FINALIZE, INIT, Kind, Step, What, sets
from kvmabi.testing.vmms.truth import MASK, TOLERANCE_S, mp_state

FEW_SHARE = 0.1
"""The share of registers without which a restore still looks complete, though no guest was entered."""


def _registers(steps: list[Step]) -> list[Step]:
    return [step for step in steps if step.writes]


def _without(steps: list[Step], *ids: int) -> list[Step]:
    return [step for step in steps if not step.writes or step.id not in ids]


def _start(steps: list[Step]) -> int:
    """Where the steps begin that follow FINALIZE or INIT."""
    return 1 + max((at for at, step in enumerate(steps) if step.what in (What.FINALIZE, What.INIT)), default=-1)


def _mode_changes(occasion: Occasion) -> list[int]:
    """vCPUs whose SVCR changes in the restore."""
    changing = []
    for save in occasion.saves:
        now = svcr_of(occasion.current(save.vcpu)) if occasion.kind is Kind.OVER and occasion.over else 0
        if SVCR in save.values and save.svcr != now:
            changing.append(save.vcpu)
    return changing


class ListOrder(Mistake):
    """Everything in the order of the list, errors ignored: SVCR comes after the vectors."""

    name = "list order"
    weight = 4

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs whose mode changes."""
        return _mode_changes(occasion)

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """FINALIZE and then the list, the vector lengths in their place before it or in the list."""
        head = [step for step in steps[: _start(steps)] if not step.writes or step.id in VLS]
        others = [step for step in steps if step.what in (What.MP_STATE, What.EVENTS)]
        written = [id for id in save.values if id not in VLS]
        if self.occasion.kind is Kind.NEW and self.rng.random() < 0.5:
            head = [step for step in head if not step.writes]
            written = list(save.values)
        return head + sets(save.values, written) + others


class SvcrLate(Mistake):
    """SVCR comes after all registers, or after some families."""

    name = "svcr late"
    weight = 4

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs whose mode changes."""
        return _mode_changes(occasion)

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same steps, some families of them before SVCR."""
        head = _without(steps[: _start(steps)], SVCR)
        early = {step.id for step in _registers(head)}
        rest = [id for id in save.values if id not in (*VLS, SVCR) and id not in early]
        banks = families.present(rest)
        first = set(banks if self.rng.random() < 0.4 else self.rng.sample(banks, self.rng.randint(1, len(banks) - 1)))
        first |= {family for family in banks if self.rng.random() < 0.3}
        before = [id for id in rest if family(id) in first]
        after = [id for id in rest if family(id) not in first]
        others = [step for step in steps if step.what in (What.MP_STATE, What.EVENTS)]
        return head + sets(save.values, [*before, SVCR, *after]) + others


class SvcrAgain(Mistake):
    """SVCR is written once more after the restore: a clean-up that starts from a known state."""

    name = "svcr written again"
    weight = 3

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs with SVCR."""
        return [save.vcpu for save in occasion.saves if SVCR in save.values]

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same, then another value of SVCR, which may stay or be put right."""
        other = self.rng.choice([value for value in range(4) if value != save.svcr])
        again = [Step(What.SET, SVCR, other.to_bytes(8, "little"))]
        return steps + again + (sets(save.values, [SVCR]) if self.rng.random() < 0.4 else [])


class LengthsForgotten(Mistake):
    """The vector lengths are not restored, though the source had chosen shorter ones."""

    name = "vector lengths not restored"
    weight = 5

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs with other lengths than the default."""
        return indices(occasion) if occasion.kind is Kind.NEW and occasion.source.vls else []

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same without them."""
        return _without(steps, *VLS)


class LengthsLate(Mistake):
    """The vector lengths are written after FINALIZE, where they are refused."""

    name = "vector lengths after finalize"
    weight = 2

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs that are finalised."""
        return indices(occasion) if occasion.kind is Kind.NEW and occasion.source.vector else []

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same, with the lengths somewhere after FINALIZE."""
        moved = _without(steps, *VLS)
        at = self.rng.randint(_start(moved), len(moved))
        return moved[:at] + sets(save.values, VLS) + moved[at:]


class FinalizeForgotten(LengthsLate):
    """FINALIZE is not called: the vectors are refused, and so is KVM_RUN."""

    name = "finalize forgotten"
    cannot_run = True
    everywhere = True
    weight = 1

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same without it."""
        return [step for step in steps if step.what not in (What.FINALIZE, What.KICK)]


class ForgottenOnRestore(Mistake):
    """Registers that were saved are not written."""

    name = "not written"
    weight = 4

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same without some registers."""
        forgotten = some(self.rng, forgettable(list(save.values)))
        if len(forgotten) > len(save.values) * FEW_SHARE:
            self.must_run = True
        return _without(steps, *forgotten)


class VectorsForgotten(Mistake):
    """Everything but the vector registers is restored."""

    name = "vectors not written"
    must_run = True

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same without them."""
        return _without(steps, *families.of(save.values, *families.VECTOR_FAMILIES, "fpsr", "fpmr"))


class InitAfter(Mistake):
    """KVM_ARM_VCPU_INIT after the restore, which resets everything."""

    name = "init after the restore"
    must_run = True

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same, then INIT."""
        return [*steps, INIT]


class MpStateForgotten(Mistake):
    """The MP state is not restored: a vCPU that was off comes up running, or the other way round."""

    name = "mp_state not restored"
    must_run = True
    weight = 8

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs that have another one than they had."""
        return [save.vcpu for save in occasion.saves if save.mp_state and save.mp_state != _mp_before(occasion, save)]

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same without it."""
        return [step for step in steps if step.what is not What.MP_STATE]


def _mp_before(occasion: Occasion, save: Save) -> bytes:
    """The MP state that a vCPU has without the restore."""
    if occasion.over is not None and occasion.kind is Kind.OVER:
        return mp_state(occasion.current(save.vcpu))
    return occasion.source.first_mp_state(save.vcpu)


class EventsForgotten(Mistake):
    """A pending SError is not restored."""

    name = "pending events not restored"
    must_run = True
    weight = 8

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs on which one was pending."""
        if occasion.kind is not Kind.NEW:
            return []
        return [save.vcpu for save in occasion.saves if save.events and is_serror_pending(save.events)]

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same without it."""
        return [step for step in steps if step.what is not What.EVENTS]


class CountForgotten(Mistake):
    """The virtual count is not restored ("it runs by itself"): the guest's time jumps back."""

    name = "cntvct not restored"
    weight = 8
    everywhere = True

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """All of a VM whose count is far from that of a new one."""
        if occasion.kind is not Kind.NEW or not occasion.saves:
            return []
        ahead = occasion.saves[0].state.virtual_count
        far = TOLERANCE_S * occasion.counter_hz * 2
        return indices(occasion) if far < ahead < MASK - far else []

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same without it."""
        return _without(steps, CNTVCT)


class FeaturesForgotten(Mistake):
    """INIT of the destination lacks SVE or SME, and the writes that are refused for it are not looked at."""

    name = "feature forgotten"
    everywhere = True
    weight = 0.7

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """All of a VM with SVE or SME."""
        return indices(occasion) if occasion.kind is Kind.NEW and occasion.source.vector else []

    def features(self, features: frozenset[str]) -> frozenset[str]:
        """One feature less."""
        self.left = features - {self.rng.choice(sorted(features & {"sve", "sme"}))}
        return self.left

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The same, FINALIZE only where it exists."""
        if self.left & {"sve", "sme"}:
            return steps
        return [step for step in steps if step.what is not What.FINALIZE]


class IdentificationLate(Mistake):
    """The destination runs before its restore: ID registers are fixed, and writes of them refused."""

    name = "id registers after the first run"
    weight = 5

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """The only vCPU of a VM with a narrower CPU model."""
        if occasion.kind is not Kind.NEW or not occasion.source.narrowed or len(occasion.saves) > 1:
            return []
        return [save.vcpu for save in occasion.saves if save.had_run]

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """Vector lengths, FINALIZE, a run, all else."""
        lengths = [step for step in _registers(steps) if step.id in VLS]
        finalize = [FINALIZE] if FINALIZE in steps else []
        rest = [step for step in steps if step is not FINALIZE and not (step.writes and step.id in VLS)]
        return lengths + finalize + [ENTER] + rest


class VcpuForgotten(Mistake):
    """A vCPU is created and not restored."""

    name = "vCPU forgotten"
    must_run = True
    weight = 3
    all_or_one = False

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """Any, if there are two."""
        return indices(occasion) if occasion.kind is Kind.NEW and len(occasion.saves) > 1 else []

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """FINALIZE only."""
        lengths = [step for step in _registers(steps) if step.id in VLS]
        return lengths + [step for step in steps if step is FINALIZE]


class AllIntoOne(VcpuForgotten):
    """The registers of one vCPU are written to another one after its own."""

    name = "two vCPUs' state into one"
    weight = 2

    def all_steps(self, plans: dict[int, list[Step]]) -> dict[int, list[Step]]:
        """A victim's steps are done to another vCPU, except those of its setup."""
        (victim,) = self.victims
        other = self.rng.choice([index for index in plans if index != victim])
        steps = plans[victim]
        setup = [step for step in steps if step.what is What.FINALIZE or (step.writes and step.id in VLS)]
        misplaced = [step for step in steps if step not in setup and step.what is not What.KICK]
        return plans | {victim: setup, other: plans[other] + misplaced}

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """As they are."""
        return steps


class Delta(Mistake):
    """Only what differs from the state before is written, though SVCR resets what is equal."""

    name = "delta over an svcr change"
    weight = 60

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs whose mode changes, while they are written over, and that have some vectors as they were saved."""
        if occasion.kind is not Kind.OVER:
            return []
        return [index for index in _mode_changes(occasion) if _same_vectors(occasion, index)]

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """SVCR, then what differed."""
        before = values_of(self.occasion.current(save.vcpu))
        changed = [id for id, value in save.values.items() if before.get(id) != value and id not in (*VLS, SVCR)]
        others = [step for step in steps if step.what not in (What.SET, What.CHECK, What.READ)]
        known = [] if self.occasion.over is not self.occasion.source else [Step(What.READ, id) for id in before]
        return known + others + sets(save.values, [SVCR, *changed])


def _same_vectors(occasion: Occasion, index: int) -> bool:
    """Whether a vector register has the saved value, which is not zero."""
    (save,) = (save for save in occasion.saves if save.vcpu == index)
    now = values_of(occasion.current(index))
    vectors = families.of(save.values, *families.VECTOR_FAMILIES)
    return any(any(save.values[id]) and now.get(id) == save.values[id] for id in vectors)


class GivenUp(ListOrder):
    """The list in its order, given up at the first write that is refused."""

    name = "given up at the first refusal"
    fatal = True
    weight = 1
    all_or_one = False

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """New vCPUs of which ZA or the vector lengths will be refused, and whose core registers show the source."""
        if occasion.kind is not Kind.NEW or not occasion.source.vector:
            return []
        return [save.vcpu for save in occasion.saves if any(any(save.values.get(id, b"")) for id in X[1:])]

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """FINALIZE and the list; the vector lengths before it if ZA is refused later."""
        head = [step for step in steps[: _start(steps)] if not step.writes or step.id in VLS]
        written = [id for id in save.values if id not in VLS]
        if not save.svcr & ZA or self.rng.random() < 0.5:
            head = [step for step in head if not step.writes]
            written = list(save.values)
        written.sort(key=lambda id: family(id) != "core")  # what was written before shows what was meant
        return head + sets(save.values, written)


RESTORED: tuple[type[Mistake], ...] = (
    *(ListOrder, SvcrLate, SvcrAgain, LengthsForgotten, LengthsLate, FinalizeForgotten, ForgottenOnRestore),
    *(VectorsForgotten, InitAfter, MpStateForgotten, EventsForgotten, CountForgotten, FeaturesForgotten),
    *(IdentificationLate, VcpuForgotten, AllIntoOne, Delta, GivenUp),
)
