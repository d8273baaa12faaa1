# SPDX-License-Identifier: MIT
"""The PMU's registers: the VM's number of counters decides which bits most of them have."""

from __future__ import annotations

from kvmabi import regid
from kvmabi.model.facts import Facts
from kvmabi.model.row import Buffer, Outcome, Owner, Row
from kvmabi.profiles.sysregs import UNKNOWN

PMCR_ID = regid.parse("pmcr_el0")
PFR0_ID, DFR0_ID = regid.parse("id_aa64pfr0_el1"), regid.parse("id_aa64dfr0_el1")
PMCR_N_SHIFT, PMCR_N = 11, 31 << 11
PMCR_WRITABLE = 0xFF
PMCR_LC = 1 << 6
CYCLE_COUNTER = 1 << 31
EVENT_EL1_EL0 = 3 << 30
EVENT_EL2 = 1 << 27
EVENT_EL3 = 1 << 26 | 3 << 28
EVENTS_V3, EVENTS_V3P1 = 0x3FF, 0xFFFF
PFR0_EL2, PFR0_EL3 = 0xF << 8, 0xF << 12
PMUVER_SHIFT, DFR0_PMUVER = 8, 0xF << 8
PMUVER_V3, PMUVER_V3P1 = 1, 4
STRICT = "pmu_v3_strict"


def counters(facts: Facts) -> int:
    """Returns the number of event counters of the host's PMU, without the cycle counter."""
    return (facts.host.registers.get(PMCR_ID, 0) & PMCR_N) >> PMCR_N_SHIFT


def counter_mask(count: int) -> int:
    """The bits of the cycle counter and of ``count`` event counters."""
    return CYCLE_COUNTER | (1 << count) - 1


def event_mask(pfr0: int, dfr0: int) -> int:
    """The bits that PMEVTYPER<n>_EL0 has in a VM whose ID_AA64PFR0_EL1 and ID_AA64DFR0_EL1 have these values."""
    version = (dfr0 & DFR0_PMUVER) >> PMUVER_SHIFT
    mask = EVENT_EL1_EL0
    mask |= EVENTS_V3P1 if version >= PMUVER_V3P1 else EVENTS_V3 if version == PMUVER_V3 else 0
    mask |= EVENT_EL2 if pfr0 & PFR0_EL2 else 0
    mask |= EVENT_EL3 if pfr0 & PFR0_EL3 else 0
    return mask


def reset_counters(facts: Facts, _events: int) -> int:
    """A register with one bit per counter after INIT: the unknown pattern in the bits of existing counters."""
    return UNKNOWN & counter_mask(counters(facts))


def reset_hpmn(facts: Facts, _events: int) -> int:
    """MDCR_EL2 after INIT: HPMN gives EL1 every counter, if the vCPU has a PMU."""
    return counters(facts)


def reset_event(_facts: Facts, events: int) -> int:
    """PMEVTYPER<n>_EL0 after INIT: the unknown pattern in the bits that it has."""
    return UNKNOWN & events


def first_counters(facts: Facts, features: frozenset[str]) -> int:
    """Returns a VM's number of event counters after its first INIT: 0 with the strict PMU, else the host's."""
    return 0 if STRICT in features else counters(facts)


def set_pmcr(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set PMCR_EL0: before the first run, N sets the VM's number of counters. Only the low byte is stored."""
    value = int.from_bytes(data, "little")
    count = (value & PMCR_N) >> PMCR_N_SHIFT
    fixed = vcpu.vm.has_run or not vcpu.mode.features.isdisjoint({"has_el2", STRICT})
    if not fixed and count <= counters(vcpu.system):
        vcpu.vm.pmu_counters = count
    value &= PMCR_WRITABLE
    if not vcpu.system.el0_32bit:
        value |= PMCR_LC
    vcpu.store(row, value.to_bytes(8, "little"))
    return None


def get_pmcr(vcpu: Owner, row: Row, _buffer: Buffer) -> bytes:
    """PMCR_EL0 with the VM's number of counters as N."""
    return (vcpu.value(row) & ~PMCR_N | vcpu.vm.pmu_counters << PMCR_N_SHIFT).to_bytes(8, "little")


def get_counters(vcpu: Owner, row: Row, _buffer: Buffer) -> bytes:
    """A register with one bit per counter: only the bits of the VM's counters."""
    return (vcpu.value(row) & counter_mask(vcpu.vm.pmu_counters)).to_bytes(8, "little")


def assign(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set a register with one bit per counter: the value replaces the old one, in ...SET and ...CLR registers."""
    vcpu.store(row, (int.from_bytes(data, "little") & counter_mask(vcpu.vm.pmu_counters)).to_bytes(8, "little"))
    return None


def set_bits(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set a ...SET register as a guest does: the bits written become 1."""
    value = int.from_bytes(data, "little") & counter_mask(vcpu.vm.pmu_counters)
    vcpu.store(row, (vcpu.value(row) | value).to_bytes(8, "little"))
    return None


def clear_bits(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set a ...CLR register as a guest does: the bits written become 0."""
    value = int.from_bytes(data, "little") & counter_mask(vcpu.vm.pmu_counters)
    vcpu.store(row, (vcpu.value(row) & ~value).to_bytes(8, "little"))
    return None


def get_counter(vcpu: Owner, row: Row, _buffer: Buffer) -> bytes:
    """An event counter: 64 bits with PMUv3p5, else the low 32."""
    if "pmu_v3p5" in vcpu.mode.exposed:
        return bytes(vcpu.memory[row.offset : row.offset + 8])
    return bytes(vcpu.memory[row.offset : row.offset + 4]) + bytes(4)
