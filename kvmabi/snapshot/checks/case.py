# SPDX-License-Identifier: MIT
"""One vCPU before its target: what the checks ask of them, worked out once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from kvmabi.model import core, sme, sve
from kvmabi.model.mode import SVCR_SM, SVCR_ZA
from kvmabi.model.plan import LENGTHS, SVCR
from kvmabi.model.registermap import RegisterMap
from kvmabi.model.row import size_of
from kvmabi.profiles import idregs
from kvmabi.snapshot import infer
from kvmabi.snapshot.lengths import SME_VLS, SVE_VLS, VQ_BITS, lengths_bits
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot, VcpuSnapshot
from kvmabi.snapshot.target import Target, Trial, is_decisive

V_IDS = frozenset(core.V_IDS)
Z_IDS = frozenset((*sve.Z_IDS, *sve.P_IDS, sve.FFR_ID))
ZA_IDS = frozenset(sme.ZA_IDS)
VECTOR_IDS = Z_IDS | ZA_IDS
SVE, SME = "sve", "sme"
WHOLE_LISTS = frozenset({"firecracker", "json", "kvm", "model", "text", "trace"})
"""Formats that hold whatever a kernel lists: what their lists lack, the guest has lost."""
HOLDS_ALL = WHOLE_LISTS | {"kvmabi"}
"""With kvmabi's own, which also says what the file that it was converted from could not hold."""
VLS = {SVE: SVE_VLS, SME: SME_VLS}


class Case:
    """A vCPU of a snapshot, and the target.

    ``features`` are those that the user or the file gives, else inferred ones. Lengths are in bits, None
    where they are unknown. ``reads_content``: a check has looked at the value of a register that is not decisive, so
    what it has seen holds for this vCPU only.
    """

    def __init__(
        self, snapshot: Snapshot, vcpu: VcpuSnapshot, target: Target, features: frozenset[str] | None = None
    ) -> None:
        self.snapshot = snapshot
        self.vcpu = vcpu
        self.target = target
        self.registers = vcpu.registers
        self.tcg = snapshot.origin is Origin.TCG
        given = target.features if target.features is not None else snapshot.features
        self.given_features = None if self.tcg else given
        self.reads_content = False
        self._features = features

    def lacks(self, fact: Fact) -> bool:
        """Whether the format, or the file, cannot hold something."""
        return fact in self.snapshot.unknown

    def present(self, ids: Iterable[int]) -> tuple[int, ...]:
        """Those of some IDs that the vCPU has."""
        return tuple(id for id in ids if id in self.registers)

    @cached_property
    def used(self) -> dict[int, int]:
        """How many bytes each vector register needs: up to its last one that is not zero."""
        return {id: len(data.rstrip(b"\0")) for id, data in self.registers.items() if id in VECTOR_IDS}

    def content(self, id: int) -> bytes:
        """A register's value, b"" if it is absent."""
        if not is_decisive(id):
            self.reads_content = True
        return self.registers.get(id, b"")

    # --- features and mode

    @property
    def features(self) -> frozenset[str]:
        """The features of INIT, given or inferred."""
        if self._features is None:
            self._features = infer.features_of(self.registers) if self.given_features is None else self.given_features
        return self._features

    @cached_property
    def has_sve(self) -> bool:
        """The vCPU has SVE: by its features, or by its ID register."""
        return SVE in self.features or bool(infer.shows_sve(self.registers))

    @cached_property
    def has_sme(self) -> bool:
        """The vCPU has SME."""
        return SME in self.features

    @cached_property
    def svcr(self) -> int:
        """SVCR's bits SM and ZA; 0 on a vCPU without SME."""
        data = self.registers.get(SVCR, b"")
        return int.from_bytes(data[:1], "little") & (SVCR_SM | SVCR_ZA)

    @cached_property
    def sm(self) -> bool:
        """The vCPU is in streaming mode."""
        return bool(self.svcr & SVCR_SM)

    @cached_property
    def za(self) -> bool:
        """ZA holds data."""
        return bool(self.svcr & SVCR_ZA)

    @cached_property
    def has_z(self) -> bool:
        """Z is in V's place."""
        return self.has_sve or self.sm

    def shows(self, name: str) -> bool | None:
        """Whether the ID registers expose something (idregs.toml, [shows]); None if the one that decides is absent."""
        field, least = next((field, least) for other, field, least in idregs.predicates() if other == name)
        value = self.vcpu.value(field.id)
        return None if value is None else field.get(value) >= least

    # --- vector lengths

    def lengths(self, kind: str) -> tuple[int, ...] | None:
        """The set of lengths of SVE or SME (``kind``): the file's, else the user's."""
        data = self.registers.get(VLS[kind])
        if data is not None and len(data) == size_of(VLS[kind]):
            return lengths_bits(data) or None
        stored, given = (
            (self.snapshot.sve_bits, self.target.sve_bits)
            if kind == SVE
            else (self.snapshot.sme_bits, self.target.sme_bits)
        )
        return stored or given or None

    def longest(self, kind: str) -> int | None:
        """The longest length of SVE or SME in bits."""
        lengths = self.lengths(kind)
        return max(lengths) if lengths else None

    @property
    def z_kind(self) -> str:
        """Whose length Z has in this mode."""
        return SME if self.sm else SVE

    def host_longest(self, kind: str) -> int | None:
        """The target's longest length of SVE or SME in bits, 0 if it has none; None if the host is unknown."""
        system = self.target.system
        if system is None:
            return None
        return max(system.sve_vqs if kind == SVE else system.sme_vqs, default=0) * VQ_BITS

    # --- the target

    @cached_property
    def trial(self) -> Trial | None:
        """The restore on the target's model; None if the target is not known, or the registers are not KVM's."""
        if self.tcg or self.target.system is None:
            return None
        lengths = {VLS[kind]: bits for kind in (SVE, SME) if (bits := self.lengths(kind))}
        return self.target.trial(self.registers, self.features, lengths)

    @property
    def map(self) -> RegisterMap | None:
        """The target's register map in this vCPU's mode."""
        return None if self.trial is None else self.trial.map

    def expected(self, ids: Iterable[int]) -> tuple[int, ...]:
        """Those of some IDs that a list of this vCPU should have: the target's list decides, if there is one."""
        listed = self._listed
        return tuple(id for id in ids if listed is None or id in listed)

    @cached_property
    def _listed(self) -> frozenset[int] | None:
        lost = self.trial is not None and self.trial.lost
        return None if self.map is None or lost else frozenset(self.map.listed)

    @cached_property
    def holds_lengths(self) -> bool:
        """The file has a place for vector lengths, so that one of them that is absent is lost."""
        return not self.lacks(Fact.VECTOR_LENGTHS) or self.snapshot.format in WHOLE_LISTS or bool(self.present(LENGTHS))
