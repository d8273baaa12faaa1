# SPDX-License-Identifier: MIT
"""``restore``: makes vCPUs what a snapshot says they were, in the order of kvmabi.model.plan, or says what is missing.

>>> import kvmabi
>>> from kvmabi.snapshot.saving import save
>>> with kvmabi.open(host="sme-demo") as kvm:
...     source = kvm.create_vm().create_vcpu(0)
...     source.init({"sve", "sme"})
...     source.finalize()
...     source["svcr"] = 3
...     source["za.h[3]"] = b"\\x07" * 256
...     restored = restore(save(source), kvm.create_vm())
...     restored.vcpus[0]["za.h[3]"][:2], kvm.findings()
(b'\\x07\\x07', [])
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kvmabi import regid, uapi
from kvmabi.errors import KvmError, UsageError
from kvmabi.kvm import Kvm, Vcpu
from kvmabi.model.plan import Plan, Stage, Step
from kvmabi.model.row import size_of
from kvmabi.order.values import first_difference, same
from kvmabi.profiles import features as feature_rules
from kvmabi.profiles import sysregs
from kvmabi.profiles.initwords import feature_bits, feature_words
from kvmabi.snapshot import infer
from kvmabi.snapshot.access import Access
from kvmabi.snapshot.lengths import SME_VLS, SVE_VLS, vls_of
from kvmabi.snapshot.snapshot import Snapshot, VcpuSnapshot
from kvmabi.snapshot.vcpus import Vcpus, Where

VECTORS = frozenset({"sve", "sme"})
MP_STATE, EVENTS = "KVM_SET_MP_STATE", "KVM_SET_VCPU_EVENTS"
SHOWN = 8


@dataclass(frozen=True)
class Failure:
    """One step of a restore that failed. ``errno`` is None if KVM took the value and reads back another one.

    ``register`` is the ID for KVM_SET_ONE_REG, else None. ``reason`` is the model's, or the errno in words.
    """

    vcpu: int
    step: str
    register: int | None
    errno: int | None
    reason: str

    @property
    def name(self) -> str:
        """The errno's name, "" if there is none."""
        return "" if self.errno is None else _errno.errorcode.get(self.errno, str(self.errno))

    def __str__(self) -> str:
        return f"vCPU {self.vcpu}: {self.step}: {self.name or 'not kept'}: {self.reason}"


@dataclass(frozen=True)
class Restored:
    """A whole restore: ``vcpus`` are what was restored, in the snapshot's order, ``features`` those of INIT.

    ``refused_equal`` are registers that KVM did not take and that have the saved value anyway. ``at_reset`` are,
    for each vCPU's number, registers that KVM lists and the snapshot lacks: they have the value of the reset.
    ``tolerated`` are failures that the caller accepts.
    """

    vcpus: tuple[Vcpu | int, ...]
    features: frozenset[str]
    refused_equal: tuple[Failure, ...]
    at_reset: Mapping[int, tuple[int, ...]]
    tolerated: tuple[Failure, ...]


class RestoreError(KvmError):
    """A restore that is not whole: the guest must not run. ``failures`` are all steps that failed, in their order.

    As a KvmError it is the first of them that has an errno; EINVAL if none has.
    """

    def __init__(self, failures: tuple[Failure, ...]) -> None:
        first = next((failure for failure in failures if failure.errno), failures[0])
        register = None if first.register is None else regid.name_of(first.register)
        super().__init__(first.errno or _errno.EINVAL, first.reason, register=register)
        self.failures = failures

    def __str__(self) -> str:
        more = len(self.failures) - SHOWN
        lines = [str(failure) for failure in self.failures[:SHOWN]]
        return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)


def restore(
    snapshot: Snapshot,
    where: Where,
    *,
    features: Iterable[str] | None = None,
    target: int | None = None,
    tolerate: Iterable[str | int] = (),
) -> Restored:
    """Initialise vCPUs and give them the state of a snapshot; nothing is lost, or RestoreError lists what is.

    ``where`` is a ``Vm``, whose vCPUs are created where it lacks them, or the vCPUs in the snapshot's order: ``Vcpu``
    objects or file descriptors. The first vCPU writes what all vCPUs of the VM share, so they are restored together,
    before the first KVM_RUN. ``features`` and ``target`` of INIT are the snapshot's unless they are given; a snapshot
    without them gets the features that its registers show, and KVM_ARM_TARGET_GENERIC_V8. Where it has no SVE_VLS or
    SME_VLS, these are written from its ``sve_bits`` and ``sme_bits``; without both, the vCPU has the host's lengths.

    Every register is written, then read back. A refused register that has its value anyway (an invariant one, or
    the vector lengths of a finalised vCPU) is not a failure; neither are registers in ``tolerate``, by name or ID, nor
    free-running counters. A vCPU whose INIT or FINALIZE fails is not restored further; the others are. Devices are
    not part of it: a VMM sets up the vGIC, the PMU's interrupt and the timers' by itself. Raises RestoreError, KvmError
    if vCPUs cannot be created, and UsageError for numbers of vCPUs that do not fit and for unknown features.
    """
    vcpus = Vcpus(where) if snapshot.vcpus else None
    if vcpus is None:
        raise UsageError("the snapshot has no vCPU")
    if vcpus.vm is not None:
        vcpus.fill(vcpu.index for vcpu in snapshot.vcpus)
    accesses = vcpus.access()
    if len(accesses) != len(snapshot.vcpus):
        raise UsageError(f"the snapshot has {len(snapshot.vcpus)} vCPUs, {len(accesses)} were given")
    chosen = _features(snapshot, features)
    allowed = {register if isinstance(register, int) else regid.parse(register) for register in tolerate}
    words = _words(chosen, vcpus.kvm)
    wanted_target = next((known for known in (target, snapshot.target) if known is not None), GENERIC)
    parts = [
        _Restore(access, vcpu, written(snapshot, vcpu, chosen), chosen, first_vcpu=place == 0)
        for place, (access, vcpu) in enumerate(zip(accesses, snapshot.vcpus, strict=True))
    ]
    for part in parts:
        part.init(wanted_target, words)
    for part in parts:
        part.write()
    for part in parts:
        part.check()
    failures = [failure for part in parts for failure in part.failures]
    lost = tuple(failure for failure in failures if failure.register is None or failure.register not in allowed)
    if lost:
        raise RestoreError(lost)
    return Restored(
        tuple(vcpus.given),
        chosen,
        tuple(failure for part in parts for failure in part.equal),
        {part.access.index: part.at_reset for part in parts if part.at_reset},
        tuple(failures),
    )


GENERIC = uapi.KVM_ARM_TARGET_GENERIC_V8


def _features(snapshot: Snapshot, given: Iterable[str] | None) -> frozenset[str]:
    if given is not None:
        return frozenset(feature_rules.expand(given))
    if snapshot.features is not None:
        return snapshot.features
    return frozenset().union(*(infer.features_of(vcpu.registers) for vcpu in snapshot.vcpus))


def _words(features: frozenset[str], kvm: Kvm | None) -> tuple[int, ...]:
    """features[] of struct kvm_vcpu_init: the bits of the Kvm's kernel, or of the headers."""
    if kvm is not None:
        bits = feature_bits(kvm.kernel, features)
    else:
        places = {name: vars(uapi).get(f"KVM_ARM_VCPU_{name.upper()}") for name in features}
        unknown = [name for name, place in places.items() if place is None]
        if unknown:
            raise UsageError(f"no vCPU feature {unknown[0]!r}: take some of {', '.join(feature_rules.table())}")
        bits = sum(1 << int(place) for place in places.values() if place is not None)
    return tuple(feature_words(bits))


def written(snapshot: Snapshot, vcpu: VcpuSnapshot, features: frozenset[str] | None = None) -> dict[int, bytes]:
    """What a restore writes: the saved registers, and before them vector lengths that are known only as sets.

    ``features`` are INIT's; None: the snapshot's, or those that the registers show.

    >>> [id == SVE_VLS for id in written(Snapshot("", [], sve_bits=(128,)), VcpuSnapshot(0, {}), frozenset({"sve"}))]
    [True]
    """
    if features is None:
        features = snapshot.features if snapshot.features is not None else infer.features_of(vcpu.registers)
    sets = (("sve", SVE_VLS, snapshot.sve_bits), ("sme", SME_VLS, snapshot.sme_bits))
    lengths = {id: vls_of(bits) for feature, id, bits in sets if bits and feature in features}
    return {**lengths, **vcpu.registers}


class _Restore:
    """The restore of one vCPU, step by step; a failure is noted, and the next register is tried."""

    def __init__(
        self,
        access: Access,
        vcpu: VcpuSnapshot,
        registers: dict[int, bytes],
        features: frozenset[str],
        *,
        first_vcpu: bool,
    ) -> None:
        self.access = access
        self.vcpu = vcpu
        self.registers = registers
        self.plan = Plan.of(registers, vector=bool(features & VECTORS), first_vcpu=first_vcpu)
        self.failures: list[Failure] = []
        self.equal: list[Failure] = []
        self.at_reset: tuple[int, ...] = ()
        self.lives = True
        self._refused: dict[int, Failure] = {}

    def init(self, target: int, words: tuple[int, ...]) -> None:
        """KVM_ARM_VCPU_INIT: before any register of any vCPU is written."""
        self._must(self.access.init(target, words), str(Step(Stage.INIT)))

    def write(self) -> None:
        """All that follows INIT."""
        for step in self.plan.steps():
            if not self.lives or step.stage is Stage.INIT:
                continue
            if step.id is None:
                errno = self.access.finalize()
                self._must(0 if errno == _errno.EPERM else errno, str(step))  # EPERM: it is finalised already
            else:
                self._set(step, step.id, self._value(step.id))
        if not self.lives:
            return
        serror, mp_state = self.vcpu.serror, self.vcpu.mp_state
        if serror is not None and serror[0]:
            self._try(self.access.set_serror(serror), EVENTS)
        if mp_state is not None:
            self._try(self.access.set_mp_state(mp_state), MP_STATE)

    def check(self) -> None:
        """Read everything back: another value is a failure, whatever the set returned."""
        if not self.lives:
            return
        try:
            lacking = [id for id in self.access.reg_list() if id not in self.registers]
            self.at_reset = tuple(id for id in lacking if self.access.held(id) is not None)
        except KvmError as error:
            self._note("KVM_GET_REG_LIST", None, error.errno, str(error))
            return
        for id, saved in self.registers.items():
            refused = self._refused.get(id)
            try:
                left = self.access.get(id)
            except KvmError as error:
                absent = Failure(
                    self.access.index, f"KVM_GET_ONE_REG {regid.name_of(id)}", id, error.errno, error.reason
                )
                self.failures.append(refused or absent)
                continue
            if refused is not None:
                (self.equal if left == saved else self.failures).append(refused)
            elif not same(id, saved, left):
                place = first_difference(saved, left)
                self._note(_name(id), id, None, f"was accepted, and reads back with another byte {place}")

    def _value(self, id: int) -> bytes:
        """What is written: the saved value, or all ones to a view that clears, so that the next register sets all.

        Linux 6.12 changes PMCNTENSET_EL0 and PMCNTENCLR_EL0 bit by bit, from values after INIT that are not zero; other
        kernels store whatever is written last.
        """
        data = self.registers[id]
        return b"\xff" * len(data) if sysregs.views().get(id) in self.registers else data

    def _set(self, step: Step, id: int, data: bytes) -> None:
        if len(data) != size_of(id):
            reason = f"the snapshot has {len(data)} bytes of it, the ID says {size_of(id)}"
            self._refused[id] = Failure(self.access.index, str(step), id, _errno.EINVAL, reason)
            return
        errno = self.access.set(id, data)
        if errno:
            self._refused[id] = Failure(self.access.index, str(step), id, errno, self.access.reason)

    def _must(self, errno: int, step: str) -> None:
        self._try(errno, step)
        self.lives = self.lives and not errno

    def _try(self, errno: int, step: str) -> None:
        if errno:
            self._note(step, None, errno, self.access.reason)

    def _note(self, step: str, register: int | None, errno: int | None, reason: str) -> None:
        self.failures.append(Failure(self.access.index, step, register, errno, reason))


def _name(id: int) -> str:
    return f"KVM_SET_ONE_REG {regid.name_of(id)}"
