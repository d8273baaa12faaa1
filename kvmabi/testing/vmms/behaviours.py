# SPDX-License-Identifier: MIT
"""What VMMs do with their VMs, from the first INIT to the last close: each a story whose steps others may interleave.

A behaviour is a generator: at each yield another VM of the same VMM may have its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kvmabi import regid
from kvmabi.testing.vmms import aside, guest
from kvmabi.testing.vmms.families import CNTVCT, MPIDR, PC, PSCI, X
from kvmabi.testing.vmms.machine import RUNNABLE, STOPPED, Machine, Save, set_mp_state
from kvmabi.testing.vmms.migration import restore, save
from kvmabi.testing.vmms.plan import Kind
from kvmabi.testing.vmms.stage import Stage

Story = Iterator[None]
FAR_AHEAD = 1 << 44
"""A virtual count that is hours ahead of the host's."""
PSCI_1_0 = 0x10000
TPIDR = regid.parse("tpidr_el0")


def _source(stage: Stage, *, ran: bool | None = None, count: int | None = None) -> Machine:
    """A VM to be saved: usually it booted and ran, and its guest left state in most registers."""
    rng = stage.rng
    machine = stage.booted(stage.create(count=count))
    if rng.random() < 0.12:
        for vcpu in machine.vcpus:
            vcpu[CNTVCT] = FAR_AHEAD
    if ran is False or (ran is None and rng.random() < 0.15):
        for vcpu in machine.vcpus:
            guest.change_all(vcpu, rng, stage.image, guest.svcr_choice(vcpu, rng))
        return machine
    stage.run(machine)
    for vcpu in machine.vcpus:
        if vcpu.index and machine.off and rng.random() < 0.3:
            continue  # never brought up
        if vcpu.index and machine.off:
            set_mp_state(vcpu, RUNNABLE)
        guest.change_all(vcpu, rng, stage.image, guest.svcr_choice(vcpu, rng))
        if vcpu.index and machine.off and rng.random() < 0.2:
            set_mp_state(vcpu, STOPPED)
    return machine


def _conclude(stage: Stage, machine: Machine, *, goes_on: float = 0.4) -> Story:
    """What follows a restore: perhaps an edit, then a run or none, perhaps more work, perhaps the end."""
    rng = stage.rng
    if machine.given_up:
        return
    if rng.random() < 0.2:
        aside.debug(stage, machine)
    if machine.must_run or rng.random() < 0.85:
        stage.run(machine)
        yield
        while rng.random() < goes_on:
            _on(stage, machine)
            yield
    if rng.random() < 0.6:
        stage.close(machine)


def _on(stage: Stage, machine: Machine) -> None:
    """A VM goes on: its guest works, and enters again."""
    stage.work(machine)
    stage.run(machine)


def _leave(stage: Stage, machine: Machine, odds: float = 0.5) -> None:
    """A source may be closed when it was saved, and may go on."""
    if stage.rng.random() < odds:
        stage.close(machine)
    elif machine.has_run and stage.rng.random() < 0.5:
        _on(stage, machine)


def move(stage: Stage) -> Story:
    """A VM is saved and restored into another one; before, it may have been saved in vain, or lost a vCPU."""
    rng = stage.rng
    machine = _source(stage)
    yield
    if machine.has_run and rng.random() < 0.3:
        yield from save(stage, machine, final=False)  # precopy, thrown away
        stage.work(machine)
    if len(machine.vcpus) > 1 and rng.random() < 0.3:
        aside.unplug(stage, machine)
    if rng.random() < 0.15 and machine.has_run:
        stage.run(machine)
        aside.debug(stage, machine)
    saves = yield from save(stage, machine)
    _leave(stage, machine)
    if rng.random() < 0.15:
        yield from aside.dropped(stage, machine, saves)
    target = yield from restore(stage, machine, saves)
    yield from _conclude(stage, target)


def checkpoints(stage: Stage) -> Story:
    """Periodic saves of a VM that goes on; the last, the first or one in the middle is restored."""
    rng = stage.rng
    machine = _source(stage, ran=True)
    count = rng.randint(2, 4)
    chosen = rng.choice((0, count - 1, rng.randrange(count)))
    saves: list[Save] = []
    for number in range(count):
        saves = (yield from save(stage, machine, final=number == chosen)) if number <= chosen else saves
        if number > chosen:
            yield from save(stage, machine, final=False)
        if number + 1 < count or rng.random() < 0.5:
            stage.work(machine)
        yield
    if rng.random() < 0.5:
        stage.close(machine)
    yield from _conclude(stage, (yield from restore(stage, machine, saves)))


def clones(stage: Stage) -> Story:
    """One save, restored into several VMs; some get x0, MPIDR or time of their own."""
    rng = stage.rng
    machine = _source(stage)
    saves = yield from save(stage, machine)
    _leave(stage, machine)
    targets = []
    for _ in range(rng.randint(2, 3)):
        target = yield from restore(stage, machine, saves)
        if not target.given_up and rng.random() < 0.6:
            _own(stage, target)
        targets.append(target)
        if rng.random() < 0.4 and not target.given_up:
            stage.run(target)
        yield
    for target in targets:
        yield from _conclude(stage, target, goes_on=0.2)


def _own(stage: Stage, machine: Machine) -> None:
    """A clone gets something of its own after its restore."""
    rng = stage.rng
    kind = rng.choice(("x0", "mpidr", "time", "psci", "thread", "cpu on"))
    if kind == "time":
        stage.edit_vm(machine, CNTVCT, (3 * FAR_AHEAD).to_bytes(8, "little"))
    elif kind == "psci" and "psci_0_2" in machine.features:
        stage.edit_vm(machine, PSCI, PSCI_1_0.to_bytes(8, "little"))
    for vcpu in machine.vcpus:
        if kind == "x0":
            stage.edit(machine, vcpu, [(X[0], rng.randbytes(8))])
        elif kind == "mpidr":
            stage.edit(machine, vcpu, [(MPIDR, (1 << 31 | 0x100 | vcpu.index).to_bytes(8, "little"))])
        elif kind == "thread":
            stage.edit(machine, vcpu, [(TPIDR, rng.randbytes(8)), (PC, rng.randbytes(4) + bytes(4))])
        elif kind == "cpu on" and machine.off and vcpu.index:
            stage.cpu_on(machine, vcpu)


def rollback(stage: Stage) -> Story:
    """A VM is saved, goes on, and is written over with its own save, with or without INIT."""
    rng = stage.rng
    machine = _source(stage, ran=True)
    for _ in range(rng.randint(1, 2)):
        kind = rng.choice((Kind.OVER, Kind.OVER, Kind.AGAIN))
        saves = yield from save(stage, machine, kind=kind)
        _on(stage, machine)  # what the guest left is its own now, and may be reset
        yield
        yield from restore(stage, machine, saves, kind=kind, over=machine)
        if machine.given_up:
            return
        if rng.random() < 0.2:
            aside.debug(stage, machine)
        stage.run(machine)
        yield
    yield from _conclude(stage, machine)


def ping_pong(stage: Stage) -> Story:
    """A VM moves to and fro, each time into a new VM."""
    rng = stage.rng
    machine = _source(stage, ran=True)
    for _ in range(rng.randint(2, 4)):
        saves = yield from save(stage, machine)
        target = yield from restore(stage, machine, saves)
        if rng.random() < 0.7:
            stage.close(machine)
        if target.given_up:
            return
        stage.run(target)
        for vcpu in target.vcpus:
            guest.change(vcpu, rng, stage.image)
        if rng.random() < 0.5:
            stage.run(target)
        machine = target
        yield


def standby(stage: Stage) -> Story:
    """Every checkpoint is streamed over a standby VM, which does not run before the failover."""
    rng = stage.rng
    machine = _source(stage, ran=True)
    target = stage.like(machine)
    target.narrowed = machine.narrowed
    for _ in range(machine.count):
        stage.finalize(target, stage.add_vcpu(target))
    rounds = rng.randint(2, 4)
    for number in range(rounds):
        final = number == rounds - 1
        saves = yield from save(stage, machine, final=final, kind=Kind.OVER)
        yield from restore(stage, machine, saves, kind=Kind.OVER, over=target, final=final)
        if not final or rng.random() < 0.5:
            stage.work(machine)
        yield
    if rng.random() < 0.6:
        stage.close(machine)
    yield from _conclude(stage, target)


def unit_test(stage: Stage) -> Story:
    """A test puts a vCPU that never runs into one mode after the other, saves it and restores each save elsewhere.

    Where guests are alike each save has a vCPU of its own: written again with nearly the values that were restored
    from it, a vCPU could not be told from one that they were moved back to.
    """
    rng = stage.rng
    machine = stage.booted(stage.create(count=1))
    for number in range(rng.randint(1, 3)):
        if number and stage.image.alike:
            machine = stage.booted(stage.create(count=1))
        (vcpu,) = machine.vcpus
        guest.change_all(vcpu, rng, stage.image, guest.svcr_choice(vcpu, rng))
        saves = yield from save(stage, machine)
        target = yield from restore(stage, machine, saves)
        if target.given_up:
            return
        if target.must_run or rng.random() < 0.3:
            stage.run(target)
        elif rng.random() < 0.5:
            aside.read_all(stage, target)
        stage.close(target)
        yield
        if stage.slot.mistake is not None:
            return  # what the save did not read is not to be reset: that would be one more mistake


def inferior_call(stage: Stage) -> Story:
    """A debugger calls a function of the guest: it saves registers, runs, and puts them back."""
    machine = _source(stage, ran=True)
    aside.inferior_call(stage, machine)
    yield
    saves = yield from save(stage, machine)
    yield from _conclude(stage, (yield from restore(stage, machine, saves)))


class Behaviour(NamedTuple):
    """A behaviour: its generator, how often it is drawn, and how many restores it has at least."""

    play: Callable[[Stage], Story]
    weight: float
    restores: int

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.play.__name__.replace("_", " ")


MOVING = (
    Behaviour(move, 4, 1),
    Behaviour(checkpoints, 3, 1),
    Behaviour(clones, 3, 2),
    Behaviour(rollback, 3, 1),
    Behaviour(ping_pong, 2, 2),
    Behaviour(standby, 2, 1),
    Behaviour(unit_test, 2, 1),
    Behaviour(inferior_call, 1, 1),
)
"""Behaviours that restore something."""
OTHERS = (
    Behaviour(aside.probe, 1, 0),
    Behaviour(aside.walk, 1, 0),
    Behaviour(aside.reboot, 1, 0),
    Behaviour(aside.idle, 1, 0),
    Behaviour(aside.half_restored, 1, 0),
)
"""Behaviours that restore nothing which a guest will see."""
BEHAVIOURS = (*MOVING, *OTHERS)
