# SPDX-License-Identifier: MIT
"""The firmware pseudo-registers: PSCI's version, the workarounds' states and the bitmaps of services."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.model import state
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Family, Refusal, Row, refuse

if TYPE_CHECKING:
    from kvmabi.model.system import System

BAD_SIZE = Refusal(errno.ENOENT, "firmware registers are 64 bits wide")
UNKNOWN = Refusal(errno.ENOENT, "this kernel has no such firmware register")


def _firmware(system: System, _mode: Mode) -> Iterator[Row]:
    for n in range(system.kernel.firmware_registers):
        yield Row(uapi.KVM_REG_ARM_FW_REG(n), 8, state.FW + n * 8, 8, shared=True)


def _bitmaps(system: System, _mode: Mode) -> Iterator[Row]:
    for n in range(len(system.kernel.firmware_bitmaps)):
        yield Row(uapi.KVM_REG_ARM_FW_FEAT_BMAP_REG(n), 8, state.FW_BMAP + n * 8, 8, shared=True)


def _refuse(_system: System, _mode: Mode, id: int) -> Row:
    if id & uapi.KVM_REG_SIZE_MASK != uapi.KVM_REG_SIZE_U64:
        return refuse(id, BAD_SIZE)
    return refuse(id, UNKNOWN, fault_first=True)


def _constant(_mode: Mode) -> None:
    """No mode changes which firmware registers there are."""


REGISTERS = Family("firmware", (uapi.KVM_REG_ARM_FW,), _constant, _firmware, _refuse)
BITMAPS = Family("firmware_bitmap", (uapi.KVM_REG_ARM_FW_FEAT_BMAP,), _constant, _bitmaps, _refuse)
