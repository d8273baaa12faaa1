# SPDX-License-Identifier: MIT
"""The register file as INIT leaves it: made from the host's registers, the vCPU's features and the kernel's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmabi.model import cache, demux, firmware, pmu, state
from kvmabi.model.mode import Mode
from kvmabi.profiles import idregs

if TYPE_CHECKING:
    from kvmabi.model.system import System

NO_MODE = Mode(frozenset(), False, 0, 0, False, False, frozenset())

NAMED = {"pmu_counters": pmu.reset_counters, "pmu_event": pmu.reset_event, "pmu_hpmn": pmu.reset_hpmn}


def base(system: System) -> bytes:
    """What every reset of a vCPU on this host and kernel has in common, whatever the vCPU's features."""
    made = bytearray(state.SIZE_BYTES)
    kernel, registers = system.kernel, system.host.registers
    for reg in system.sysregs:
        if not isinstance(reg.reset, str):
            value = registers.get(reg.id, 0) if reg.reset is None else reg.reset
            _put(made, system.sysreg_offset(reg.id), value, 8)
    for row in firmware.REGISTERS.rows(system, NO_MODE):
        _put(made, row.offset, registers.get(row.id, 0), 8)
    for row, value in zip(firmware.BITMAPS.rows(system, NO_MODE), kernel.firmware_bitmaps, strict=True):
        _put(made, row.offset, value, 8)
    for row in demux.FAMILY.rows(system, NO_MODE):
        made_up = cache.line_field(system, row.id & 0xFF)
        _put(made, row.offset, made_up if kernel.switches.ccsidr_made_up else registers.get(row.id, 0), 4)
    return bytes(made)


def image(system: System, features: frozenset[str], events: int | None = None) -> bytes:
    """The register file but for the vector lengths and MPIDR_EL1, which are the vCPU's own.

    ``events`` are the bits of PMEVTYPER<n>_EL0 in this VM (None: those that it has before userspace sets ID registers).
    """
    made = bytearray(system.base_image)
    kernel = system.kernel
    _put(made, state.PSTATE, _pstate(system, features), 8)
    _put(made, state.FW, kernel.psci_latest if "psci_0_2" in features else kernel.psci_without, 8)
    _limit(system, features, made)
    if "pmu_v3" in features:
        if events is None:
            events = pmu.event_mask(*(system.sysreg_value(made, id) for id in (pmu.PFR0_ID, pmu.DFR0_ID)))
        for reg in system.sysregs:
            if isinstance(reg.reset, str):
                _put(made, system.sysreg_offset(reg.id), NAMED[reg.reset](system, events), 8)
    return bytes(made)


def _put(made: bytearray, offset: int, value: int, size: int) -> None:
    made[offset : offset + size] = value.to_bytes(size, "little")


def _pstate(system: System, features: frozenset[str]) -> int:
    kernel = system.kernel
    if "el1_32bit" in features:
        return kernel.pstate_32bit
    return kernel.pstate_el2 if "has_el2" in features else kernel.pstate


def _limit(system: System, features: frozenset[str], made: bytearray) -> None:
    """Take from the ID registers what the vCPU's features do not allow."""
    for clear in idregs.clears():
        if clear.applies(features, system.kernel.switches):
            value = system.sysreg_value(made, clear.field.id) & ~clear.field.mask
            _put(made, system.sysreg_offset(clear.field.id), value, 8)
    for nested in idregs.nested() if "has_el2" in features else ():
        if not nested.needs or nested.needs in features:
            value = nested.apply(system.sysreg_value(made, nested.field.id))
            _put(made, system.sysreg_offset(nested.field.id), value, 8)
