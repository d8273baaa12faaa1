# SPDX-License-Identifier: MIT
"""The demultiplexed registers: CCSIDR_EL1 as one register for each value of CSSELR_EL1."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.model import cache, state
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Family, Refusal, Row, refuse

if TYPE_CHECKING:
    from kvmabi.model.system import System

UNKNOWN = Refusal(errno.ENOENT, "the only demultiplexed registers are the 32-bit ccsidr[<n>] of the host's caches")
CCSIDR_BASE = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX | uapi.KVM_REG_ARM_DEMUX_ID_CCSIDR


def _rows(system: System, _mode: Mode) -> Iterator[Row]:
    rule = cache.set_ccsidr if system.kernel.switches.ccsidr_made_up else cache.set_host_ccsidr
    for n in range(cache.CACHES):
        if system.kernel.switches.ccsidr_made_up or cache.host_has(system, n):
            yield Row(CCSIDR_BASE | n, 4, state.CCSIDR + n * 4, 4, rule=rule)


def _refuse(_system: System, _mode: Mode, id: int) -> Row:
    return refuse(id, UNKNOWN)


FAMILY = Family("demux", (uapi.KVM_REG_ARM_DEMUX,), lambda _mode: None, _rows, _refuse)
