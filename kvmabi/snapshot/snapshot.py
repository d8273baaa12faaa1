# SPDX-License-Identifier: MIT
"""Snapshots: what the vCPUs of a VM were, from any file or vCPU, and what that file cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from kvmabi import regid, uapi
from kvmabi.model.mode import SVCR_SM, SVCR_ZA
from kvmabi.model.plan import SVCR, Plan

_MP_STATES = {
    value: name.removeprefix("KVM_MP_STATE_").lower()
    for name, value in vars(uapi).items()
    if name.startswith("KVM_MP_STATE_")
}


def mp_state_text(state: int) -> str:
    """An MP state in words.

    >>> mp_state_text(5), mp_state_text(77)
    ('stopped', 'MP state 77')
    """
    return _MP_STATES.get(state, f"MP state {state}")


class Fact(Enum):
    """Something that a reader of a snapshot would like to know and that some formats do not hold."""

    VECTOR_LENGTHS = "the sets of vector lengths"
    FEATURES = "the features of KVM_ARM_VCPU_INIT"
    HOST = "the host"
    KERNEL = "the kernel"
    ORDER = "the order in which registers are restored"
    MP_STATE = "the MP state"
    EVENTS = "pending events"
    SVE = "Z, P and FFR"
    SME = "svcr, ZA and ZT0"
    LONG_Z = "bits 1024 to 2047 of Z"
    FIRMWARE_BITMAPS = "the bitmaps of firmware features"


class Origin(Enum):
    """Whose registers they are: TCG's list of registers is not a kernel's."""

    KVM = "KVM"
    TCG = "TCG"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Problem:
    """What a reader finds wrong with a file: ``rule`` is the ID of a rule in rules.toml.

    ``offset`` is the place in the (unpacked) file in bytes, None where there is none.
    """

    rule: str
    text: str
    offset: int | None = None
    vcpu: int | None = None
    register: int | None = None


@dataclass
class VcpuSnapshot:
    """One vCPU: its registers by ID, as KVM_GET_ONE_REG transfers them, in the order in which they are stored.

    ``mp_state`` is a KVM_MP_STATE_ value. ``serror`` is what KVM_GET_VCPU_EVENTS reports of an SError: pending, has an
    ESR, ESR. ``offsets`` returns each register's place in the file in bytes. None stands for what the file lacks.

    >>> from kvmabi import regid, uapi
    >>> vcpu = VcpuSnapshot(0, {regid.parse("svcr"): bytes([2]) + bytes(7)})
    >>> vcpu.sm, vcpu.za, vcpu.value("svcr")
    (False, True, 2)
    """

    index: int
    registers: dict[int, bytes]
    mp_state: int | None = None
    serror: tuple[bool, bool, int] | None = None
    offsets: Callable[[], Mapping[int, int]] | None = field(default=None, compare=False, repr=False)
    facts: dict[str, Any] = field(default_factory=dict)

    def data(self, register: str | int) -> bytes | None:
        """A register's bytes, by name or ID; None if it is absent."""
        return self.registers.get(regid.parse(register) if isinstance(register, str) else register)

    def value(self, register: str | int) -> int | None:
        """A register's value as a number; None if it is absent."""
        data = self.data(register)
        return None if data is None else int.from_bytes(data, "little")

    @property
    def svcr(self) -> int | None:
        """SVCR's value; None on a vCPU without SME."""
        return self.value(SVCR)

    @property
    def sm(self) -> bool:
        """Whether the vCPU is in streaming mode."""
        return bool((self.svcr or 0) & SVCR_SM)

    @property
    def za(self) -> bool:
        """Whether ZA holds data."""
        return bool((self.svcr or 0) & SVCR_ZA)

    @property
    def plan(self) -> Plan:
        """The order that restores this vCPU as the first one of its VM."""
        return Plan.of(self.registers)

    @cached_property
    def places(self) -> Mapping[int, int]:
        """Each register's place in the file in bytes, as far as it has one."""
        return {} if self.offsets is None else self.offsets()


@dataclass
class Snapshot:
    """What a VM was. ``format`` names the format that it was read from ("model" for a vCPU that was saved here).

    ``sve_bits`` and ``sme_bits`` are the sets of vector lengths of the guest in bits, empty without the extension, None
    if they are unknown; likewise ``features``. ``target`` is INIT's. ``host`` and ``kernel`` are names of profiles or
    free text. ``unknown`` is what the format, or this file, cannot hold. ``devices`` names other devices and their
    sizes, ``facts`` whatever else a file says about the machine. ``problems`` are the reader's findings.
    """

    format: str
    vcpus: list[VcpuSnapshot]
    origin: Origin = Origin.UNKNOWN
    features: frozenset[str] | None = None
    target: int | None = None
    host: str = ""
    kernel: str = ""
    sve_bits: tuple[int, ...] | None = None
    sme_bits: tuple[int, ...] | None = None
    unknown: frozenset[Fact] = frozenset()
    facts: dict[str, Any] = field(default_factory=dict)
    devices: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
