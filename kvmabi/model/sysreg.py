# SPDX-License-Identifier: MIT
"""The system registers: which of the table's rows this vCPU has, and what happens when one is set."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.model import idreg, sme, state
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Effect, Family, Refusal, Row, refuse

if TYPE_CHECKING:
    from kvmabi.model.system import System
    from kvmabi.model.vcpu import Vcpu

UNKNOWN = Refusal(errno.ENOENT, "this kernel gives no access to such a register")
HIDDEN = Refusal(errno.ENOENT, "the register does not exist on this vCPU: it needs {needs}")

# What a set of a register does beyond storing; the names are those of the table's column "rule".
RULES: dict[str, Callable[[Vcpu, Row, bytes], list[Effect]]] = {
    "svcr": sme.set_svcr,
    "feature_id": idreg.set_feature_id,
    "implementation_id": idreg.set_implementation_id,
}


def offset(slot: int) -> int:
    """Where in the register file the system register of a table row stands."""
    return state.SYSREG + slot * 8


def _rows(system: System, mode: Mode) -> Iterator[Row]:
    there = mode.features | mode.shown
    for reg in system.sysregs:
        if reg.needs <= there:
            rule = RULES[reg.rule] if reg.rule else None
            yield Row(reg.id, 8, offset(reg.slot), 8, shared=reg.shared, fault_first=True, rule=rule)


def _refuse(system: System, mode: Mode, id: int) -> Row:
    known = system.sysreg_by_id.get(id)
    if known is None:
        return refuse(id, UNKNOWN, fault_first=True)
    missing = ", ".join(sorted(known.needs - mode.features - mode.shown))
    hidden = HIDDEN._replace(reason=HIDDEN.reason.format(needs=missing))
    return refuse(id, hidden, fault_first=True)


FAMILY = Family("sysreg", (uapi.KVM_REG_ARM64_SYSREG,), lambda mode: (mode.features, mode.shown), _rows, _refuse)
