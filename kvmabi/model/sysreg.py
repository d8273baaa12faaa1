# SPDX-License-Identifier: MIT
"""The system registers: which of the table's rows this vCPU has, and what happens when one is set or read."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.model import cache, idreg, pmu, sme, state, timer
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Effect, Family, Refusal, Row, refuse
from kvmabi.profiles import sysregs

if TYPE_CHECKING:
    from kvmabi.model.system import System
    from kvmabi.model.vcpu import Vcpu

UNKNOWN = Refusal(errno.ENOENT, "this kernel gives no access to such a register")
HIDDEN = Refusal(errno.ENOENT, "the register does not exist on this vCPU: it needs {needs}")
ONLY_LOCK = Refusal(errno.EINVAL, "of OSLSR_EL1 only the lock, bit 1, can be changed")
RESERVED = Refusal(errno.EINVAL, "the register has no bits that can be 1")
OSLK = 1 << 1


def _set_oslsr(vcpu: Vcpu, row: Row, data: bytes) -> list[Effect]:
    if (int.from_bytes(data, "little") ^ vcpu.reset_value(row)) & ~OSLK:
        raise vcpu.refused(row, ONLY_LOCK)
    vcpu.store(row, data)
    return []


def _set_zero(vcpu: Vcpu, row: Row, data: bytes) -> list[Effect]:
    if any(data):
        raise vcpu.refused(row, RESERVED)
    return []


def _ignore(_vcpu: Vcpu, _row: Row, _data: bytes) -> list[Effect]:
    return []


# What a set and a get of a register do beyond storing and reading, by the table's columns "rule" and "get".
SETTERS: dict[str, Callable[[Vcpu, Row, bytes], Iterable[Effect]]] = {
    "svcr": sme.set_svcr,
    "feature_id": idreg.set_feature_id,
    "aarch32_id": idreg.set_aarch32_id,
    "implementation_id": idreg.set_implementation_id,
    "constant": idreg.set_constant,
    "clidr": cache.set_clidr,
    "oslsr": _set_oslsr,
    "pmcr": pmu.set_pmcr,
    "pmu_set": pmu.assign,
    "pmu_clear": pmu.assign,
    "pmu_set_bits": pmu.set_bits,
    "pmu_clear_bits": pmu.clear_bits,
    "counter": timer.set_counter,
    "timer_ctl": timer.set_control,
    "timer_ctl_32bit": timer.set_control_32bit,
    "zero": _set_zero,
    "ignore": _ignore,
}
GETTERS: dict[str, Callable[[Vcpu, Row], bytes]] = {
    "pmcr": pmu.get_pmcr,
    "pmu_counters": pmu.get_counters,
    "pmu_counter": pmu.get_counter,
    "counter": timer.get_counter,
    "timer_ctl_status": timer.get_control_status,
    "smprimap": sme.get_smprimap,
}


def offset(slot: int) -> int:
    """Where in the register file the system register of a table row stands."""
    return state.SYSREG + slot * 8


def _group(name: str) -> Callable[[System, Mode], Iterator[Row]]:
    def rows(system: System, mode: Mode) -> Iterator[Row]:
        there = mode.features | mode.shown
        return (row for needs, row in system.sysreg_rows[name] if needs <= there)

    return rows


def row_of(reg: sysregs.SysReg) -> Row:
    """A register's row, which is the same in every mode that has the register."""
    row = Row(reg.id, 8, offset(reg.slot), 8, shared=reg.shared, fault_first=True)
    row.rule = SETTERS[reg.rule] if reg.rule else None
    row.get_rule = GETTERS[reg.get] if reg.get else None
    return row


def _refuse(system: System, mode: Mode, id: int) -> Row:
    alias = id & ~uapi.KVM_REG_ARM_COPROC_MASK | uapi.KVM_REG_ARM64_SYSREG
    if system.kernel.switches.invariant_ids_loose and alias in system.invariant_ids:
        row = system.map(mode).row(alias)
        return replace(row, id=id, listed=False)
    known = system.sysreg_by_id.get(id)
    if known is None:
        return refuse(id, UNKNOWN, fault_first=True)
    missing = ", ".join(sorted(known.needs - mode.features - mode.shown))
    hidden = HIDDEN._replace(reason=HIDDEN.reason.format(needs=missing))
    return refuse(id, hidden, fault_first=True)


def _key(mode: Mode) -> frozenset[str]:
    """Of what the vCPU has, only what some system register needs."""
    return (mode.features | mode.shown) & sysregs.needs()


COPROCS = (uapi.KVM_REG_ARM64_SYSREG,)
FAMILY = Family("sysreg", COPROCS, _key, _group("sysreg"), _refuse)
# Older kernels list these of them apart; their ids are system registers' all the same.
INVARIANTS = Family("invariant", COPROCS, _key, _group("invariant"), _refuse, answers=False)
TIMERS = Family("timer", COPROCS, _key, _group("timer"), _refuse, answers=False)
