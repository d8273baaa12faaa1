# SPDX-License-Identifier: MIT
"""The demultiplexed registers: CCSIDR_EL1 as one register for each value of CSSELR_EL1."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from kvmabi import uapi
from kvmabi.model import cache, state
from kvmabi.model.facts import Facts
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.registermap import Family, RegisterMap
from kvmabi.model.row import Row, checked, refuse

UNKNOWN = Refusal(errno.ENOENT, "the only demultiplexed registers are the 32-bit ccsidr[<n>] of the host's caches")
CCSIDR_BASE = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX | uapi.KVM_REG_ARM_DEMUX_ID_CCSIDR


def _rows(facts: Facts, _mode: Mode) -> Iterator[Row]:
    setter = checked(cache.set_ccsidr if facts.kernel.switches.ccsidr_made_up else cache.set_host_ccsidr)
    for n in range(cache.CACHES):
        if facts.kernel.switches.ccsidr_made_up or cache.host_has(facts, n):
            yield Row(CCSIDR_BASE | n, 4, state.CCSIDR + n * 4, 4, setter=setter)


def _refuse(_map: RegisterMap, id: int) -> Row:
    return refuse(id, UNKNOWN)


FAMILY = Family("demux", (uapi.KVM_REG_ARM_DEMUX,), lambda _mode: None, _rows, _refuse)
