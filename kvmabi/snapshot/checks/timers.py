# SPDX-License-Identifier: MIT
"""The virtual timer's count and compare value: do they look exchanged?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kvmabi import regid
from kvmabi.snapshot.checks.findings import Seen

COUNT_ID, COMPARE_ID, CONTROL_ID = map(regid.parse, ("cntvct_el0", "cntv_cval_el0", "cntv_ctl_el0"))
ENABLE, ISTATUS = 1 << 0, 1 << 2
SLACK = 1_000_000
"""How many ticks can lie between the reads of control and count: 1 ms at 1 GHz, the fastest counter."""


def check(registers: Mapping[int, bytes]) -> Iterator[Seen]:
    """A count of 0 next to a compare value, or a status that contradicts both."""
    if COUNT_ID not in registers or COMPARE_ID not in registers:
        return
    count, compare, control = (
        int.from_bytes(registers.get(id, b"")[:8], "little") for id in (COUNT_ID, COMPARE_ID, CONTROL_ID)
    )
    values = f"cntvct_el0 {count:#x}, cntv_cval_el0 {compare:#x}, cntv_ctl_el0 {control:#x}"
    if not count and compare:
        yield Seen("timer-pair", f"{values}: a count that runs is not 0", (COUNT_ID, COMPARE_ID))
    elif control & ENABLE:
        if control & ISTATUS and count < compare:
            yield Seen(
                "timer-pair", f"{values}: ISTATUS says that the compare value is reached", (COUNT_ID, COMPARE_ID)
            )
        elif not control & ISTATUS and count >= compare + SLACK:
            yield Seen(
                "timer-pair", f"{values}: ISTATUS says that the compare value is not reached", (COUNT_ID, COMPARE_ID)
            )
