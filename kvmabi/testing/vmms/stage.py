# SPDX-License-Identifier: MIT
"""The stage of one run: its VMs, what happened in words, and the truth, taken right before each guest entry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from kvmabi import regid
from kvmabi.errors import KvmError
from kvmabi.kvm import Kvm, Vcpu
from kvmabi.model import vls
from kvmabi.testing.vmms import guest
from kvmabi.testing.vmms.families import PC, SME_VLS, SVE_VLS, VLS, X
from kvmabi.testing.vmms.guest import Image
from kvmabi.testing.vmms.machine import RUNNABLE, STOPPED, Machine, enter, features_of, number_of, set_mp_state
from kvmabi.testing.vmms.truth import MP_STATE, State, lost, mp_state, state_of

Place = tuple[int, int, str]
"""A register of a vCPU: the VM's number, the vCPU's index, the register's name."""
ID_EDITS = ((regid.parse("id_aa64isar0_el1"), 48, 1), (regid.parse("id_aa64pfr1_el1"), 24, 2))
"""ID registers that a narrower CPU model changes: a field's lowest bit, and the value from which it is lowered by 1."""
FIELD = 0xF
COUNTS = (*(1,) * 12, *(2,) * 5, 3, 4)
"""How many vCPUs a VM has, as often as they are written here."""


@dataclass(eq=False)
class Restored:
    """A vCPU that was restored and has not entered the guest since: the state that is due.

    ``edits`` are the names of registers that its VMM has changed on purpose since. ``only``: of a restore that was
    given up, the one register that is due (None: all). ``others`` are the states at other saves of the same vCPU.
    ``with_mp_state``: the VMM has restored the MP state, too.
    """

    vcpu: Vcpu
    state: State
    edits: set[str] = field(default_factory=set)
    only: str | None = None
    others: Sequence[State] = ()
    with_mp_state: bool = False


class Stage:
    """Everything of one run. ``rng`` decides what happens, ``slot`` holds the mistake to be made, if any.

    ``is_ambiguous``: the vCPU that has lost something is as at another save or nearer to it, so that no observer of
    the ioctls could say which one its VMM meant.
    """

    def __init__(self, kvm: Kvm, rng: Random, slot: Slot) -> None:
        self.kvm = kvm
        self.rng = rng
        self.slot = slot
        self.host_features = features_of(kvm)
        self.story: list[str] = []
        self.truth: set[Place] = set()
        self.latent: set[Place] = set()
        self.is_ambiguous = False
        self.image = Image(rng, alike=rng.choice((0, 0, 0.5, 0.95)), with_events=rng.random() < 0.15)
        self._restored: dict[int, list[Restored]] = {}
        self._refused: defaultdict[Vcpu, set[int]] = defaultdict(set)
        self._handled: defaultdict[Vcpu, set[int]] = defaultdict(set)

    def note(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(text)

    # --- VMs

    def create(self, *, count: int | None = None, features: frozenset[str] | None = None) -> Machine:
        """A VM without vCPUs: how many it is to have, and with which features."""
        rng = self.rng
        if features is None:
            features = frozenset(name for name in ("sve", "sme") if name in self.host_features and rng.random() < 0.92)
            features |= {"psci_0_2"} if rng.random() < 0.8 else set()
        if count is None:
            count = rng.choice(COUNTS)
        return Machine(self.kvm.create_vm(), features, count > 1 and rng.random() < 0.5, count)

    def like(self, other: Machine, *, features: frozenset[str] | None = None) -> Machine:
        """A VM as the destination of another one's state."""
        wanted = other.features if features is None else features
        machine = Machine(self.kvm.create_vm(), wanted, other.off, other.count)
        machine.vls = dict(other.vls)
        return machine

    def add_vcpu(self, machine: Machine) -> Vcpu:
        """KVM_CREATE_VCPU and KVM_ARM_VCPU_INIT of the next vCPU."""
        vcpu = machine.vm.create_vcpu(len(machine.vcpus))
        vcpu.init(machine.features_of(vcpu.index))
        machine.vcpus.append(vcpu)
        return vcpu

    def configure(self, machine: Machine) -> None:
        """What a VMM may choose for a new VM: shorter vectors, a narrower CPU model."""
        rng = self.rng
        for id, vqs in self._lengths(machine).items():
            if len(vqs) > 1 and rng.random() < 0.25:
                machine.vls[id] = vls.encode(vqs, rng.choice(sorted(vqs)[:-1]))
        machine.narrowed = rng.random() < 0.3

    def finalize(self, machine: Machine, vcpu: Vcpu) -> None:
        """The chosen vector lengths and CPU model, then FINALIZE, then sometimes a list for later."""
        for id, value in machine.vls.items():
            vcpu[id] = value
        if machine.narrowed and not machine.has_run:
            self._narrow(machine, vcpu)
        if machine.vector:
            vcpu.finalize()
        if self.rng.random() < 0.5:
            machine.early_lists.append(vcpu.reg_list())

    def booted(self, machine: Machine) -> Machine:
        """A VM with all its vCPUs, finalised and with the boot's registers."""
        self.configure(machine)
        for _ in range(machine.count):
            vcpu = self.add_vcpu(machine)
            self.finalize(machine, vcpu)
            if not vcpu.index or not machine.off:
                guest.boot(vcpu, self.rng)
        self.note(
            f"VM {machine.number}: {machine.count} vCPUs, {'+'.join(sorted(machine.features)) or 'no features'}"
            f"{', secondaries off' if machine.off else ''}{', narrower CPU model' if machine.narrowed else ''}"
            f"{', shorter vectors' if machine.vls else ''}"
        )
        return machine

    def _lengths(self, machine: Machine) -> dict[int, frozenset[int]]:
        scratch = self.kvm.host
        sizes = {SVE_VLS: ("sve", scratch.sve_vector_bits), SME_VLS: ("sme", scratch.sme_vector_bits)}
        return {
            id: frozenset(bits // 128 for bits in lengths)
            for id, (feature, lengths) in sizes.items()
            if feature in machine.features
        }

    def _narrow(self, machine: Machine, vcpu: Vcpu) -> None:
        """Lowers fields of ID registers, which all vCPUs of a VM share, through the first one."""
        if vcpu.index:
            return
        narrowed = False
        for id, lsb, least in ID_EDITS:
            value = vcpu.read(id)
            writable = self.kvm.kernel.writable_masks.get(id, 0) >> lsb & FIELD == FIELD
            if writable and value >> lsb & FIELD >= least:
                vcpu[id] = value - (1 << lsb)
                narrowed = True
        machine.narrowed = narrowed

    # --- entries and the truth

    def run(self, machine: Machine, *, only: int | None = None) -> None:
        """Every vCPU (or one) enters the guest, after the truth of all of them was taken."""
        self.settle(machine)
        for vcpu in machine.vcpus:
            if only is None or vcpu.index == only:
                try:
                    enter(vcpu)
                except KvmError as error:
                    self.note(f"VM {machine.number} vCPU {vcpu.index}: KVM_RUN fails: {error}")
                    continue
                machine.has_run = True

    def work(self, machine: Machine, *, only: int | None = None) -> None:
        """Runs a VM, whose guest changes some of its state."""
        self.run(machine)
        for vcpu in machine.vcpus:
            if only is None or vcpu.index == only:
                guest.change(vcpu, self.rng, self.image)

    def close(self, machine: Machine) -> None:
        """Closes a VM's vCPUs and then the VM."""
        self.settle(machine)
        for vcpu in machine.vcpus:
            self.kvm.close(vcpu.fd)
        machine.vm.close()
        machine.vcpus.clear()

    def expect(self, machine: Machine, restored: Restored) -> None:
        """A vCPU was restored: it is compared before the next entry of its VM, and at its close."""
        self._restored.setdefault(machine.number, []).append(restored)

    def due(self, machine: Machine, vcpu: Vcpu) -> Restored | None:
        """The state that a vCPU must have, if it was restored and has not entered the guest since."""
        waiting = self._restored.get(machine.number, ())
        return next((restored for restored in waiting if restored.vcpu is vcpu), None)

    def forget(self, machine: Machine) -> None:
        """What was restored so far is restored again, or given up."""
        self._restored.pop(machine.number, None)

    def settle(self, machine: Machine) -> None:
        """Takes the truth of all vCPUs of a VM that were restored."""
        for restored in self._restored.pop(machine.number, ()):
            self._compare(restored)

    def settle_all(self) -> None:
        """Takes the truth of all that is still open at the end."""
        for waiting in self._restored.values():
            for restored in waiting:
                self._compare(restored)
        self._restored.clear()

    def _compare(self, restored: Restored) -> None:
        vcpu = restored.vcpu
        place = number_of(vcpu.vm), vcpu.index
        names = self._gone(restored) - restored.edits
        refused = {regid.name_of(id) for id in VLS if id in self._refused[vcpu] and id in restored.state.values}
        if restored.only is not None:
            names &= {restored.only}
            refused &= {restored.only}
        self.truth |= {(*place, name) for name in names}
        self.latent |= {(*place, name) for name in refused - names - restored.edits}
        if names:
            self.is_ambiguous |= self._is_nearer_to_another(restored, names)
            self.note(f"VM {place[0]} vCPU {place[1]} has lost {len(names)}: {' '.join(sorted(names)[:8])}")

    def _is_nearer_to_another(self, restored: Restored, names: set[str]) -> bool:
        """Whether a vCPU has more of another save than of the one that was restored."""
        now = state_of(restored.vcpu)
        for state in restored.others:
            others = lost(state, now, self.kvm.host.counter_hz) - restored.edits
            if others != names and len(others) <= len(names):
                return True
        return False

    # --- writes

    def write(self, vcpu: Vcpu, id: int, value: bytes) -> KvmError | None:
        """KVM_SET_ONE_REG; returns the error of a write that was refused."""
        self._handled[vcpu].add(id)
        refused = self._refused[vcpu]
        try:
            vcpu[id] = value
        except KvmError as error:
            refused.add(id)
            return error
        refused.discard(id)
        return None

    def handled(self, vcpu: Vcpu, id: int) -> None:
        """The VMM has written a register, or looked at it and found it as it should be."""
        self._handled[vcpu].add(id)

    def start_over(self, vcpu: Vcpu) -> None:
        """INIT undoes what was restored."""
        self._handled.pop(vcpu, None)

    def _may_edit(self, restored: Restored, id: int) -> bool:
        """Whether a change on purpose can be told from a loss: the register was restored, and as saved."""
        return id in self._handled[restored.vcpu] and regid.name_of(id) not in self._gone(restored)

    def edit(self, machine: Machine, vcpu: Vcpu, changes: Iterable[tuple[int, bytes]]) -> None:
        """The VMM changes registers on purpose, of a vCPU that may just have been restored.

        Only what was restored as saved is changed.
        """
        restored = self.due(machine, vcpu)
        changes = [(id, value) for id, value in changes if restored is None or self._may_edit(restored, id)]
        for id, value in changes:
            name = regid.name_of(id)
            if restored is not None:
                restored.edits.add(name)
            vcpu[id] = value
            self.note(f"VM {machine.number} vCPU {vcpu.index}: {name} is changed on purpose")

    def edit_vm(self, machine: Machine, id: int, value: bytes) -> None:
        """The VMM changes a register that all vCPUs of a VM share, through each of them."""
        name = regid.name_of(id)
        waiting = self._restored.get(machine.number, ())
        if not all(self._may_edit(restored, id) for restored in waiting):
            return
        for restored in waiting:
            restored.edits.add(name)
        for vcpu in machine.vcpus:
            vcpu[id] = value
        self.note(f"VM {machine.number}: {name} is changed on purpose")

    def _gone(self, restored: Restored) -> set[str]:
        return lost(restored.state, state_of(restored.vcpu), self.kvm.host.counter_hz)

    def cpu_on(self, machine: Machine, vcpu: Vcpu) -> None:
        """PSCI CPU_ON as the VMM's userspace does it: pc, x0 and the MP state of a vCPU that was off."""
        restored = self.due(machine, vcpu)
        if mp_state(vcpu) != STOPPED or (restored is not None and restored.state.mp_state != STOPPED):
            return
        entry = (PC, X[0])
        if restored is not None:
            if not restored.with_mp_state or not all(self._may_edit(restored, id) for id in entry):
                return
            restored.edits.add(MP_STATE)
        self.edit(machine, vcpu, [(id, bytes(8)) for id in entry])
        set_mp_state(vcpu, RUNNABLE)


class Slot:
    """Where the one mistake of a wrong run goes: at the ``turn``-th opportunity. A right run's slot is empty."""

    def __init__(self, turn: int | None, *, wanted: str | None = None) -> None:
        self._turn = turn
        self.wanted = wanted
        self.mistake: str | None = None

    @property
    def is_open(self) -> bool:
        """A mistake is to be made, and was not made yet."""
        return self._turn is not None and self.mistake is None

    def is_next(self) -> bool:
        """Counts an opportunity; whether the mistake is to be made there."""
        if self._turn is None or self.mistake is not None:
            return False
        self._turn -= 1
        return self._turn < 0
