# SPDX-License-Identifier: MIT
"""What VMMs, debuggers and tests do besides saving and restoring, and what is easily mistaken for it."""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi.model.row import size_of
from kvmabi.testing.vmms import families, guest, plan
from kvmabi.testing.vmms.families import FPMR, FPSR, PC, PSTATE, SP, SVCR, VECTOR_FAMILIES, VLS, X
from kvmabi.testing.vmms.machine import Machine, Save, enter, ids_of, kick
from kvmabi.testing.vmms.migration import save
from kvmabi.testing.vmms.plan import Kind, What
from kvmabi.testing.vmms.stage import Stage

Story = Iterator[None]
LINK = X[30]
DROPPED_SHARE = 0.6
"""The greatest share of registers that a restore has written when it is cancelled."""


def read_all(stage: Stage, machine: Machine) -> None:
    """Reads every register that is listed, and does nothing with it."""
    for vcpu in machine.vcpus:
        for id in vcpu.reg_list():
            assert vcpu[id] is not None


def debug(stage: Stage, machine: Machine) -> None:
    """A debugger reads all registers of a vCPU and edits some."""
    rng = stage.rng
    vcpu = rng.choice(machine.vcpus)
    visible = vcpu.reg_list()
    read = visible if rng.random() < 0.7 else families.of(visible, "core", "v", "z", "fpsr", "fpcr")
    for id in read:
        assert vcpu[id] is not None
    pool = [id for id in (*X, PC, SP, *families.of(visible, *VECTOR_FAMILIES)) if id in visible]
    stage.edit(machine, vcpu, [(id, rng.randbytes(size_of(id))) for id in rng.sample(pool, rng.randint(1, 4))])


def inferior_call(stage: Stage, machine: Machine) -> None:
    """A debugger saves the core registers, has a function run, and puts them back."""
    rng = stage.rng
    vcpu = machine.vcpus[0]
    stage.run(machine)
    kept = {id: vcpu[id] for id in families.of(vcpu.reg_list(), "core")}
    for id in (PC, LINK, X[0], X[1], SP):
        vcpu[id] = rng.randbytes(4) + bytes(4)
    enter(vcpu)
    for id in rng.sample(X, rng.randint(3, 18)):
        vcpu[id] = rng.randbytes(8)
    if rng.random() < 0.5:
        read_all(stage, machine)
    for id, value in kept.items():
        vcpu[id] = value
    stage.note(f"VM {machine.number}: a debugger calls a function")
    if rng.random() < 0.5:
        stage.run(machine)


def unplug(stage: Stage, machine: Machine) -> None:
    """The last vCPU of a VM is closed."""
    vcpu = machine.vcpus.pop()
    stage.kvm.close(vcpu.fd)
    machine.count = len(machine.vcpus)
    stage.note(f"VM {machine.number}: vCPU {vcpu.index} is unplugged")


def dropped(stage: Stage, source: Machine, saves: list[Save]) -> Story:
    """A restore that is cancelled: part of it is done, rightly, and the VM is closed without a run."""
    rng = stage.rng
    machine = stage.like(source)
    chosen = rng.choice(saves)
    for _ in range(chosen.vcpu + 1):
        vcpu = stage.add_vcpu(machine)
    early = stage.kvm.kernel.switches.svcr_before_finalize
    steps = plan.right(rng, chosen, Kind.NEW, vector=machine.vector, early_svcr=early)
    attempted: set[int] = set()
    most = rng.uniform(0.02, DROPPED_SHARE) * len(chosen.values)
    refused = False
    for step in steps:
        attempted.add(step.id)
        if len(attempted) > most and not refused:  # it is not the refusal that cancels it
            break
        if step.what is What.FINALIZE:
            vcpu.finalize()
        elif step.what is What.SET:
            refused = stage.write(vcpu, step.id, step.value) is not None
    yield
    stage.note(f"VM {machine.number}: half restored and dropped")
    stage.close(machine)


def half_restored(stage: Stage) -> Story:
    """A VM is saved, one restore of it is dropped, and it goes on as if nothing had been."""
    machine = stage.booted(stage.create(count=1))
    stage.work(machine)
    saves = yield from save(stage, machine, final=False)
    yield from dropped(stage, machine, saves)
    stage.run(machine)
    stage.close(machine)


def probe(stage: Stage) -> Story:
    """A probe VM finds out what can be written by writing back what it read; it is closed without a run."""
    machine = stage.booted(stage.create(count=1))
    (vcpu,) = machine.vcpus
    yield
    values = {id: vcpu[id] for id in vcpu.reg_list()}
    for id, value in values.items():
        if id not in VLS:
            stage.write(vcpu, id, value)
        if stage.rng.random() < 0.1:
            assert vcpu[id] is not None
    stage.note(f"VM {machine.number}: a probe writes back what it read")
    stage.close(machine)


def walk(stage: Stage) -> Story:
    """A test walks through the modes, fills registers with patterns and reads them back, with runs between or none."""
    rng = stage.rng
    machine = stage.booted(stage.create(count=1))
    (vcpu,) = machine.vcpus
    for _ in range(rng.randint(1, 4)):
        if SVCR in ids_of(vcpu):
            vcpu[SVCR] = rng.randrange(4)
        written = families.of(ids_of(vcpu), *VECTOR_FAMILIES, "core")
        written.remove(PSTATE)
        for id in written:
            vcpu[id] = rng.randbytes(size_of(id))
        for id in (*written, *(id for id in (FPSR, FPMR, SVCR) if id in ids_of(vcpu))):
            assert vcpu[id] is not None
        yield
        if rng.random() < 0.4:
            stage.run(machine)
    stage.note(f"VM {machine.number}: a test walks through the modes")
    if rng.random() < 0.5:
        stage.close(machine)


def reboot(stage: Stage) -> Story:
    """A VM that reboots by INIT, with a save before or without."""
    rng = stage.rng
    machine = stage.booted(stage.create())
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.7:
            stage.work(machine)
        else:
            stage.run(machine)
        if rng.random() < 0.5:
            yield from save(stage, machine, final=False)
        stage.run(machine)  # what the guest left is its own now, and may be reset
        for vcpu in machine.vcpus:
            vcpu.init(machine.features_of(vcpu.index))
            if not vcpu.index or not machine.off:
                guest.boot(vcpu, rng)
        stage.note(f"VM {machine.number}: reboots")
        stage.run(machine)
        yield
    if rng.random() < 0.7:
        stage.close(machine)


def idle(stage: Stage) -> Story:
    """VMs that are created and closed at some point of their boot, kicked or run a little."""
    rng = stage.rng
    for _ in range(rng.randint(1, 3)):
        machine = stage.create(count=1)
        vcpu = stage.add_vcpu(machine)
        stage.note(f"VM {machine.number}: created and closed")
        if rng.random() < 0.7:
            stage.finalize(machine, vcpu)
            if rng.random() < 0.7:
                guest.boot(vcpu, rng)
            yield
            for _ in range(rng.randrange(3)):
                kick(vcpu)
            if rng.random() < 0.5:
                stage.run(machine)
        stage.close(machine)
