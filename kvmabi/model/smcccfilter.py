# SPDX-License-Identifier: MIT
"""The SMCCC filter of a VM: which of the guest's calls KVM answers, denies, or forwards to the VMM.

Source: devices/vm.rst, 6 KVM_ARM_VM_SMCCC_CTRL, and the answers of Linux 6.12 to 7.3.
"""

from __future__ import annotations

import errno
from bisect import bisect_right, insort

from kvmabi import uapi
from kvmabi.model.refusal import Refusal

ACTIONS = frozenset({uapi.KVM_SMCCC_FILTER_HANDLE, uapi.KVM_SMCCC_FILTER_DENY, uapi.KVM_SMCCC_FILTER_FWD_TO_USER})
LAST = (1 << 32) - 1
RESERVED = ((0x80000000, 0x8000FFFF), (0xC0000000, 0xC000FFFF))
"""The calls of the Arm architecture itself, first and last function."""
PADDED = Refusal(errno.EINVAL, "the padding of a filter is zero")
BAD_RANGE = Refusal(errno.EINVAL, "a filter has at least one function, none above 0xffffffff, and a known action")
TOO_LATE = Refusal(errno.EBUSY, "a vCPU has run", "set the filter before KVM_RUN")
TAKEN = Refusal(errno.EEXIST, "a function of this range has a filter already, or belongs to the architecture")


class SmcccFilter:
    """The ranges of functions that have an action; all others are KVM's to handle."""

    def __init__(self) -> None:
        self._ranges = sorted(RESERVED)
        self._actions = dict.fromkeys(RESERVED, int(uapi.KVM_SMCCC_FILTER_HANDLE))

    def action(self, function: int) -> int:
        """What becomes of a guest's call of a function: KVM_SMCCC_FILTER_*."""
        place = bisect_right(self._ranges, (function, LAST))
        if not place or self._ranges[place - 1][1] < function:
            return int(uapi.KVM_SMCCC_FILTER_HANDLE)
        return self._actions[self._ranges[place - 1]]

    def add(self, first: int, count: int, action: int, padding: bytes, *, has_run: bool) -> None:
        """KVM_ARM_VM_SMCCC_FILTER. Errors: EINVAL, EBUSY, EEXIST."""
        if any(padding):
            raise PADDED.error()
        last = first + count - 1
        if not count or last > LAST or action not in ACTIONS:
            raise BAD_RANGE.error()
        if has_run:
            raise TOO_LATE.error()
        place = bisect_right(self._ranges, (last, LAST))
        if place and self._ranges[place - 1][1] >= first:
            raise TAKEN.error()
        insort(self._ranges, (first, last))
        self._actions[first, last] = action
