# SPDX-License-Identifier: MIT
"""The system registers: which rows of the table a vCPU has, and the rules of its sets and gets."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial

from kvmabi import uapi
from kvmabi.model import cache, idreg, pmu, sme, state, timer
from kvmabi.model.facts import Facts
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.registermap import Family, RegisterMap
from kvmabi.model.row import Getter, Outcome, Owner, Row, Rule, checked, refuse
from kvmabi.profiles import sysregs

UNKNOWN = Refusal(errno.ENOENT, "this kernel does not give access to this register")
HIDDEN = Refusal(errno.ENOENT, "the register does not exist on this vCPU: it needs {needs}")
ONLY_LOCK = Refusal(errno.EINVAL, "only the lock, bit 1 of OSLSR_EL1, can be changed")
RESERVED = Refusal(errno.EINVAL, "every bit of the register is reserved and zero")
OSLK = 1 << 1


def _set_oslsr(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    if (int.from_bytes(data, "little") ^ vcpu.reset_value(row)) & ~OSLK:
        return ONLY_LOCK
    vcpu.store(row, data)
    return None


def _set_zero(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    if any(data):
        return RESERVED
    return None


def _ignore(_vcpu: Owner, _row: Row, _data: bytes) -> Outcome:
    return None


# The rules of a set and a get beyond storing and reading, by the table's columns "rule" and "get".
RULES: dict[str, Rule] = {
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
GETTERS: dict[str, Getter] = {
    "pmcr": pmu.get_pmcr,
    "pmu_counters": pmu.get_counters,
    "pmu_counter": pmu.get_counter,
    "counter": timer.get_counter,
    "timer_ctl_status": timer.get_control_status,
    "smprimap": sme.get_smprimap,
}


Rows = dict[str, list[tuple[frozenset[str], Row]]]
"""The rows of the system registers by the kernel's groups, each with the features that it needs."""


def _all_rows(facts: Facts) -> Rows:
    return {group: [(reg.needs, _row_of(reg)) for reg in registers] for group, registers in facts.sysreg_groups.items()}


def _row_of(reg: sysregs.SysReg) -> Row:
    """A register's row, which is the same in every mode that has the register."""
    setter = checked(RULES[reg.rule]) if reg.rule else None
    getter = GETTERS[reg.get] if reg.get else None
    return Row(reg.id, 8, state.sysreg_offset(reg.slot), 8, shared=reg.shared, getter=getter, setter=setter)


def _group(name: str) -> Callable[[Facts, Mode], Iterator[Row]]:
    def rows(facts: Facts, mode: Mode) -> Iterator[Row]:
        available = mode.features | mode.exposed
        all_rows = facts.once("sysreg rows", partial(_all_rows, facts))
        return (row for needs, row in all_rows[name] if needs <= available)

    return rows


def _refuse(map: RegisterMap, id: int) -> Row:
    alias = id & ~uapi.KVM_REG_ARM_COPROC_MASK | uapi.KVM_REG_ARM64_SYSREG
    if map.facts.kernel.switches.invariant_ids_loose and alias in map.facts.invariant_ids:
        return map.row(alias).alias(id)
    reg = map.facts.sysreg_by_id.get(id)
    if reg is None:
        return refuse(id, UNKNOWN, after_copy=True)
    missing = ", ".join(sorted(reg.needs - map.mode.features - map.mode.exposed))
    hidden = HIDDEN._replace(reason=HIDDEN.reason.format(needs=missing))
    return refuse(id, hidden, after_copy=True)


def _key(mode: Mode) -> frozenset[str]:
    """Those features and exposed names of the vCPU that some system register needs."""
    return (mode.features | mode.exposed) & sysregs.needs()


COPROCS = (uapi.KVM_REG_ARM64_SYSREG,)
FAMILY = Family("sysreg", COPROCS, _key, _group("sysreg"), _refuse)
# Older kernels list these system registers separately; their IDs are of the same kind.
INVARIANTS = Family("invariant", COPROCS, _key, _group("invariant"), _refuse, answers=False)
TIMERS = Family("timer", COPROCS, _key, _group("timer"), _refuse, answers=False)
