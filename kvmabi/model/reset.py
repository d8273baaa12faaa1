# SPDX-License-Identifier: MIT
"""The register file after INIT, from the host's registers, the vCPU's features and the kernel's rules."""

from __future__ import annotations

from functools import partial

from kvmabi.model import cache, demux, firmware, pmu, state
from kvmabi.model.facts import Facts
from kvmabi.model.mode import Mode
from kvmabi.profiles import idregs

NO_MODE = Mode(frozenset(), False, 0, 0, False, False, frozenset())

NAMED = {"pmu_counters": pmu.reset_counters, "pmu_event": pmu.reset_event, "pmu_hpmn": pmu.reset_hpmn}


def _base(facts: Facts) -> bytes:
    """The part of the reset image that does not depend on the vCPU's features."""
    memory = bytearray(state.SIZE_BYTES)
    kernel, registers = facts.kernel, facts.host.registers
    for reg in facts.sysregs:
        if not isinstance(reg.reset, str):
            value = registers.get(reg.id, 0) if reg.reset is None else reg.reset
            _put(memory, facts.sysreg_offset(reg.id), value, 8)
    for row in firmware.REGISTERS.rows(facts, NO_MODE):
        _put(memory, row.offset, registers.get(row.id, 0), 8)
    for row, value in zip(firmware.BITMAPS.rows(facts, NO_MODE), kernel.firmware_bitmaps, strict=True):
        _put(memory, row.offset, value, 8)
    for row in demux.FAMILY.rows(facts, NO_MODE):
        made_up = cache.line_field(facts, row.id & 0xFF)
        _put(memory, row.offset, made_up if kernel.switches.ccsidr_made_up else registers.get(row.id, 0), 4)
    return bytes(memory)


def image(facts: Facts, features: frozenset[str], events: int | None = None) -> bytes:
    """The register file after INIT, except the vector lengths and MPIDR_EL1, which differ between vCPUs.

    ``events`` are the bits of PMEVTYPER<n>_EL0 in this VM (None: those that it has before userspace sets ID registers).
    """
    return facts.once(("reset image", features, events), partial(_image, facts, features, events))


def _image(facts: Facts, features: frozenset[str], events: int | None) -> bytes:
    memory = bytearray(facts.once("reset base", partial(_base, facts)))
    kernel = facts.kernel
    _put(memory, state.PSTATE, _pstate(facts, features), 8)
    _put(memory, state.FW, kernel.psci_latest if "psci_0_2" in features else kernel.psci_without, 8)
    _limit(facts, features, memory)
    if "pmu_v3" in features:
        if events is None:
            events = pmu.event_mask(*(facts.sysreg_value(memory, id) for id in (pmu.PFR0_ID, pmu.DFR0_ID)))
        for reg in facts.sysregs:
            if isinstance(reg.reset, str):
                _put(memory, facts.sysreg_offset(reg.id), NAMED[reg.reset](facts, events), 8)
    return bytes(memory)


def _put(memory: bytearray, offset: int, value: int, size: int) -> None:
    memory[offset : offset + size] = value.to_bytes(size, "little")


def _pstate(facts: Facts, features: frozenset[str]) -> int:
    kernel = facts.kernel
    if "el1_32bit" in features:
        return kernel.pstate_32bit
    return kernel.pstate_el2 if "has_el2" in features else kernel.pstate


def _limit(facts: Facts, features: frozenset[str], memory: bytearray) -> None:
    """Limit the ID registers to what the vCPU's features allow."""
    for clear in idregs.clears():
        if clear.applies(features, facts.kernel.switches):
            value = facts.sysreg_value(memory, clear.field.id) & ~clear.field.mask
            _put(memory, facts.sysreg_offset(clear.field.id), value, 8)
    for nested in idregs.nested() if "has_el2" in features else ():
        if not nested.needs or nested.needs in features:
            value = nested.apply(facts.sysreg_value(memory, nested.field.id))
            _put(memory, facts.sysreg_offset(nested.field.id), value, 8)
