# SPDX-License-Identifier: MIT
"""Where a snapshot is to be restored: a host, a kernel, and what the user knows of the guest.

A target tries the writes that can fail (``is_decisive``) on the model and keeps the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from kvmabi import regid
from kvmabi.errors import KvmError, UsageError
from kvmabi.model import core
from kvmabi.model.plan import LENGTHS, Stage, stage_of
from kvmabi.model.refusal import Refusal
from kvmabi.model.registermap import RegisterMap
from kvmabi.model.row import size_of
from kvmabi.model.system import System
from kvmabi.model.vm import Vm
from kvmabi.profiles import Host, Kernel, load_host, load_kernel, sysregs
from kvmabi.profiles import features as feature_rules
from kvmabi.snapshot import infer, trying
from kvmabi.snapshot.lengths import checked, vls_of
from kvmabi.snapshot.snapshot import VcpuSnapshot

NO_LENGTHS: Mapping[int, Iterable[int]] = {}
JUDGED_RULES = frozenset({"feature_id", "aarch32_id", "implementation_id", "constant", "clidr", "oslsr", "zero"})
"""The rules of system registers whose sets can fail because of the value (model/sysreg.py)."""
JUDGED_FAMILIES = frozenset({"firmware", "firmware_bitmap", "demux"})


@lru_cache(maxsize=1 << 14)
def is_decisive(id: int) -> bool:
    """Whether a register's value decides about others, or can be refused.

    >>> [is_decisive(regid.parse(name)) for name in ("svcr", "id_aa64pfr0_el1", "ccsidr[0]", "x0", "z3")]
    [True, True, True, False, False]
    """
    if stage_of(id) is not Stage.REST or id == core.PSTATE_ID:
        return True
    register = sysregs.by_id().get(id)
    if register is not None:
        return register.rule in JUDGED_RULES
    return regid.decode(id).family in JUDGED_FAMILIES


@dataclass
class Trial:
    """What a restore on the target answers.

    ``map`` is the register map after SVCR, None if INIT fails. ``failure`` says why INIT with the features asked for
    fails, "" if it works; then the trial goes on without the features that the target lacks, ``lost``. ``refused`` are
    the writes of values that fail, with the value that the register had before in ``before``.
    """

    features: frozenset[str]
    map: RegisterMap | None = None
    failure: str = ""
    lost: frozenset[str] = frozenset()
    refused: dict[int, Refusal] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Target:
    """A host under a kernel, as far as they are known, and what the user knows of the guest.

    ``features`` are those of KVM_ARM_VCPU_INIT, ``sve_bits`` and ``sme_bits`` the guest's sets of vector lengths in
    bits (empty: the guest has none). None is unknown. ``Target.of`` takes names.

    >>> target = Target.of(host="sme-demo", sve_bits=[128, 256])
    >>> target.kernel.name, target.sve_bits, target.features
    ('sme-v12', (128, 256), None)
    """

    host: Host | None = None
    kernel: Kernel | None = None
    features: frozenset[str] | None = None
    sve_bits: tuple[int, ...] | None = None
    sme_bits: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        *,
        host: str | Host | None = None,
        kernel: str | Kernel | None = None,
        features: Iterable[str] | None = None,
        sve_bits: Iterable[int] | None = None,
        sme_bits: Iterable[int] | None = None,
    ) -> Target:
        """A target by names of profiles; the kernel is the host's unless it is given. Raises UsageError."""
        chosen_host = None if host is None else load_host(host)
        if kernel is None and chosen_host is not None:
            kernel = chosen_host.kernel
        expanded = None if features is None else frozenset(feature_rules.expand(features))
        for name in expanded or ():
            if name not in feature_rules.table():
                raise UsageError(f"no vCPU feature {name!r}: take some of {', '.join(feature_rules.table())}")
        return cls(
            chosen_host,
            None if kernel is None else load_kernel(kernel),
            expanded,
            None if sve_bits is None else checked(sve_bits, "sve_bits"),
            None if sme_bits is None else checked(sme_bits, "sme_bits"),
        )

    @cached_property
    def system(self) -> System | None:
        """The host under the kernel; None unless both are known."""
        return None if self.host is None or self.kernel is None else System(self.host, self.kernel)

    def map(self, vcpu: VcpuSnapshot, features: frozenset[str] | None = None) -> RegisterMap | None:
        """The register map that a vCPU has here after INIT, VLS, ID registers, FINALIZE and SVCR of a snapshot.

        ``features`` are the snapshot's; the target's come first, and without either they are inferred. None if the
        target is not known, or INIT fails there.

        >>> vcpu = VcpuSnapshot(0, {regid.parse("svcr"): bytes([2]) + bytes(7)})
        >>> Target.of(host="sme-demo").map(vcpu).mode.za
        True
        """
        if self.system is None:
            return None
        chosen = self.features if self.features is not None else features
        return self.trial(vcpu.registers, infer.features_of(vcpu.registers) if chosen is None else chosen).map

    def trial(
        self,
        registers: Mapping[int, bytes],
        features: frozenset[str],
        lengths: Mapping[int, Iterable[int]] = NO_LENGTHS,
    ) -> Trial:
        """Restores what can fail of a vCPU on the model. The target must be known.

        ``lengths`` are sets of vector lengths in bits by the ID of sve_vls or sme_vls, for a vCPU without the register;
        where they are absent, too, the target's own count.
        """
        assert self.system is not None
        writes = {id: data for id, data in registers.items() if is_decisive(id) and len(data) == size_of(id)}
        for id, bits in (dict(zip(LENGTHS, (self.sve_bits, self.sme_bits), strict=True)) | dict(lengths)).items():
            if bits:
                writes.setdefault(id, vls_of(bits))
        return _restore(self.system, features, writes)


def _restore(system: System, features: frozenset[str], writes: Mapping[int, bytes]) -> Trial:
    """The trial; without the features that the target lacks, if INIT fails for them."""
    trial = _tried(system, features, writes)
    offered = features & system.features
    if trial.map is not None or offered == features:
        return trial
    again = _tried(system, offered, writes)
    again.failure, again.lost = trial.failure, features - offered
    return again


def _tried(system: System, features: frozenset[str], writes: Mapping[int, bytes]) -> Trial:
    trial = Trial(features)
    with closing(Vm(system, 1)) as vm:
        try:
            vcpu = trying.initialized(vm, features)
        except (KvmError, UsageError) as error:
            trial.failure = error.reason if isinstance(error, KvmError) else str(error)
            return trial
        answers = trying.restore(vcpu, writes)
        trial.map = vcpu.map
    for id, answer in answers.items():
        if answer.of_value:  # the map shows which registers there are
            trial.refused[id], trial.before[id] = answer.refusal, answer.before
    return trial
