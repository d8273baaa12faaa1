# SPDX-License-Identifier: MIT
"""Saves and restores of whole VMs, done ioctl by ioctl: rightly, or with the one mistake of the run."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from kvmabi import regid
from kvmabi.errors import KvmError
from kvmabi.kvm import Vcpu
from kvmabi.testing.vmms import guest, mistakes, plan
from kvmabi.testing.vmms.families import family
from kvmabi.testing.vmms.machine import (
    Machine,
    Save,
    enter,
    get_events,
    get_mp_state,
    kick,
    set_events,
    set_mp_state,
    values_of,
)
from kvmabi.testing.vmms.mistake import Mistake, Occasion
from kvmabi.testing.vmms.plan import Kind, Step, What
from kvmabi.testing.vmms.stage import Restored, Stage
from kvmabi.testing.vmms.truth import State, state_of

CHANGES_SHARE = 0.2
"""The share of restores over a vCPU that write only what has changed."""
BREATH = 150
"""After about so many ioctls of one VM another one may have its turn."""


# --- saves


def save(
    stage: Stage, machine: Machine, *, final: bool = True, kind: Kind = Kind.NEW
) -> Generator[None, None, list[Save]]:
    """Saves all vCPUs of a VM. ``final``: this save is what a restore of this ``kind`` will be made from."""
    mistake = None
    if final and stage.slot.is_open and stage.rng.random() < mistakes.SAVE_SHARE and stage.slot.is_next():
        mistake = _make(stage, Occasion(stage.rng, machine, kind=kind))
    saves = []
    for vcpu in machine.vcpus:
        spoiled = mistake if mistake is not None and vcpu.index in mistake.victims else None
        saves.append(_save_vcpu(stage, machine, vcpu, spoiled))
        yield
    machine.saves.append(saves)
    stage.note(f"VM {machine.number} is saved{f', mistake: {mistake.name}' if mistake else ''}")
    return saves


def _save_vcpu(stage: Stage, machine: Machine, vcpu: Vcpu, mistake: Mistake | None) -> Save:
    rng = stage.rng
    ids = vcpu.reg_list()
    order = rng.random()
    if order < 0.1:
        ids = rng.sample(ids, len(ids))
    elif order < 0.25:
        ids = sorted(ids, key=lambda id: family(id) != "system")
    torn = None
    if mistake is not None:
        ids = mistake.reads(vcpu, ids)
        torn = mistake.torn_at(ids)
    values = {}
    kicked = rng.randrange(len(ids)) if ids and rng.random() < 0.1 and machine.has_run else None
    for number, id in enumerate(ids):
        if number == torn:
            machine.torn_from[vcpu.index] = state_of(vcpu)
            _run_on(stage, machine, vcpu)
        if number == kicked:
            kick(vcpu)
        try:
            values[id] = vcpu[id]
        except KvmError:
            if mistake is None:
                raise
    state = state_of(vcpu)
    with_mp_state = machine.off or rng.random() < 0.3
    with_events = stage.image.with_events or rng.random() < 0.2
    return Save(
        vcpu.index,
        values,
        get_mp_state(vcpu) if with_mp_state else None,
        get_events(vcpu) if with_events else None,
        state,
        machine.has_run,
        mistake is not None and mistake.must_run,
    )


def _run_on(stage: Stage, machine: Machine, vcpu: Vcpu) -> None:
    """The guest of a vCPU runs on in the middle of its save, in the same mode."""
    stage.run(machine)
    guest.change_all(vcpu, stage.rng, stage.image, None)


# --- restores


def restore(
    stage: Stage,
    source: Machine,
    saves: list[Save],
    *,
    kind: Kind = Kind.NEW,
    over: Machine | None = None,
    final: bool = True,
) -> Generator[None, None, Machine]:
    """Restores the saves of ``source`` into a new VM, or ``over`` an existing one; returns the VM.

    ``final``: no other restore follows over this one.
    """
    mistake = None
    if final and stage.slot.is_open and stage.slot.is_next():
        occasion = Occasion(stage.rng, source, saves, kind, over, stage.kvm.host.counter_hz)
        mistake = _make(stage, occasion)
    machine = over or _destination(stage, source, len(saves), mistake)
    stage.forget(machine)
    loaded = mistake.loads(saves) if mistake is not None else saves
    plans = {save.vcpu: _steps(stage, machine, save, kind, mistake, saves) for save in loaded}
    if mistake is not None:
        plans = mistake.all_steps(plans)
    stage.note(
        f"VM {source.number} is restored {'to' if kind is Kind.NEW else 'over'} VM {machine.number} ({kind})"
        f"{f', mistake: {mistake.name} on vCPU {sorted(mistake.victims)}' if mistake else ''}"
    )
    given_up = yield from _execute(stage, machine, plans, mistake)
    for save in saves:
        if given_up is None:
            restored = Restored(_vcpu(machine, save.vcpu), save.state, others=_others(source, save))
            restored.with_mp_state = any(step.what is What.MP_STATE for step in plans[save.vcpu])
            stage.expect(machine, restored)
        elif given_up[0] == save.vcpu:
            only = regid.name_of(given_up[1])
            stage.expect(machine, Restored(_vcpu(machine, save.vcpu), save.state, only=only))
    machine.given_up = given_up is not None or (mistake is not None and mistake.cannot_run)
    machine.must_run = any(save.must_run for save in saves) or (mistake is not None and mistake.must_run)
    if given_up is not None:
        stage.close(machine)
    elif machine.given_up and stage.rng.random() < 0.6:
        stage.run(machine)
    return machine


def _others(source: Machine, save: Save) -> list[State]:
    """The states of the vCPU at its other saves, and in the middle of one that is torn."""
    torn = [source.torn_from[save.vcpu]] if save.vcpu in source.torn_from else []
    saved = [other for moment in source.saves for other in moment if other.vcpu == save.vcpu]
    return torn + [other.state for other in saved if other is not save]


def _make(stage: Stage, occasion: Occasion) -> Mistake | None:
    mistake = mistakes.draw(occasion, wanted=stage.slot.wanted)
    stage.slot.mistake = mistake.name if mistake is not None else None
    return mistake


def _destination(stage: Stage, source: Machine, count: int, mistake: Mistake | None) -> Machine:
    features = mistake.features(source.features) if mistake is not None else source.features
    machine = stage.like(source, features=features)
    machine.count = count
    machine.narrowed = source.narrowed
    if stage.rng.random() < 0.5:
        for _ in range(count):
            stage.add_vcpu(machine)
    return machine


def _steps(
    stage: Stage, machine: Machine, save: Save, kind: Kind, mistake: Mistake | None, saves: list[Save]
) -> list[Step]:
    """The steps that restore one vCPU. Of spoiled values all are written.

    Otherwise, where the right value was there before and was looked at, a wrong one would be a change on purpose.
    """
    rng = stage.rng
    if kind is Kind.NEW and save.mp_state == machine.first_mp_state(save.vcpu) and rng.random() < 0.5:
        save = save._replace(mp_state=None)
    known = None
    if kind is Kind.OVER and mistake is None and rng.random() < CHANGES_SHARE:
        known = values_of(_vcpu(machine, save.vcpu))
    steps = plan.right(
        rng,
        save,
        kind,
        vector=machine.vector,
        has_run=machine.has_run,
        early_svcr=stage.kvm.kernel.switches.svcr_before_finalize,
        known=known,
        checks=any(save.values is other.values for other in saves if other.vcpu == save.vcpu),
    )
    if known is not None and machine.has_run:  # its guest has changed it since
        steps = [Step(What.READ, id) for id in known] + steps
    return mistake.steps(steps, save) if mistake is not None and save.vcpu in mistake.victims else steps


def _vcpu(machine: Machine, index: int) -> Vcpu:
    return next(vcpu for vcpu in machine.vcpus if vcpu.index == index)


def _execute(
    stage: Stage, machine: Machine, plans: dict[int, list[Step]], mistake: Mistake | None
) -> Generator[None, None, tuple[int, int] | None]:
    """Does the steps of all vCPUs; returns the vCPU and the ID of the write at which it was given up, if it was."""
    vcpus: dict[int, Vcpu] = {}
    for number, (index, step) in enumerate(_merged(stage, plans)):
        vcpu = vcpus.get(index)
        if vcpu is None:
            while index >= len(machine.vcpus):
                stage.add_vcpu(machine)
            vcpu = vcpus[index] = _vcpu(machine, index)
        if not _do(stage, machine, vcpu, step) and mistake is not None and mistake.fatal:
            return index, step.id
        if number % BREATH == BREATH - 1:
            yield
    while len(machine.vcpus) < machine.count:
        stage.add_vcpu(machine)
    return None


def _merged(stage: Stage, plans: dict[int, list[Step]]) -> Iterator[tuple[int, Step]]:
    """The steps of several vCPUs: one vCPU after the other, or in turns."""
    order = list(plans)
    if len(order) == 1 or stage.rng.random() < 0.5:
        for index in order:
            yield from ((index, step) for step in plans[index])
        return
    chunk = stage.rng.choice((7, 40, 200))
    for start in range(0, max(map(len, plans.values())), chunk):
        for index in order:
            yield from ((index, step) for step in plans[index][start : start + chunk])


def _do(stage: Stage, machine: Machine, vcpu: Vcpu, step: Step) -> bool:
    """Does a step; returns False for a write that was refused."""
    if step.what is What.SET:
        return stage.write(vcpu, step.id, step.value) is None
    if step.what is What.CHECK:
        try:
            if vcpu[step.id] == step.value:
                stage.handled(vcpu, step.id)
                return True
        except KvmError:  # a write is refused for the same reason
            pass
        return stage.write(vcpu, step.id, step.value) is None
    if step.what is What.READ:
        assert vcpu[step.id] is not None
    elif step.what is What.INIT:
        vcpu.init(machine.features_of(vcpu.index))
        stage.start_over(vcpu)
    elif step.what is What.FINALIZE:
        vcpu.finalize()
    elif step.what is What.KICK:
        kick(vcpu)
    elif step.what is What.ENTER:
        enter(vcpu)
        machine.has_run = True
    elif step.what is What.MP_STATE:
        set_mp_state(vcpu, step.value)
    else:
        set_events(vcpu, step.value)
    return True
