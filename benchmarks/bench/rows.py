# SPDX-License-Identifier: MIT
"""The rows of the table: where each figure comes from, its target, and what a real kernel is asked for instead."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

BARE: Final = ("native, reports off", "ioctl that the kernel answers")
"""The figure that all others are compared with: a system call that the host's kernel answers, in the same run."""


COUNTED: Final = re.compile(r"^(save|restore) of (\d+) registers$")
"""A figure of fastpath.c that says how many registers the vCPU has."""


class Row(NamedTuple):
    """A line of the table.

    ``side`` and ``figure`` name what is measured (sides.py). ``target`` is in µs, None without one. ``real`` is the
    figure of a real kernel (realkernel.py) that does the same; "" without one.
    """

    side: str
    figure: str
    title: str
    target: float | None = None
    real: str = ""


STACK_GET, STACK_SET = "get, buffer on the stack", "set, buffer on the stack"
HEAP_GET = "get, buffer on the heap"
OTHER_GET, OTHER_SET = "get, other buffer", "set, other buffer"
ROUND_TRIP, MODE_CHANGE = "round trip to the server", "mode change"
SAVE, RESTORE, BOOT = "save", "restore", "start-up"
OUR_SAVE, OUR_RESTORE = "save of 543 registers", "restore of 543 registers"
"""Of a vCPU with SVE and SME at 2048 bits and ZA on. How many registers a real kernel's vCPU has depends on QEMU."""

NATIVE, NATIVE_OFF = "native, reports on", "native, reports off"
ARM64, ARM64_OFF = "arm64 under qemu-user, reports on", "arm64 under qemu-user, reports off"
STATIC = "static, through seccomp, reports on"
PYTHON, STARTUP, REPLAY = "Python objects", "commands", "replay"


def _accesses(side: str, mapped: float, other: float) -> tuple[Row, ...]:
    """Plain accesses: a target for buffers that are known to be mapped, and one for others."""
    known, unknown = (STACK_GET, STACK_SET, HEAP_GET), (OTHER_GET, OTHER_SET)
    return (
        *(Row(side, figure, figure, mapped, figure) for figure in known),
        *(Row(side, figure, figure, other, figure) for figure in unknown),
    )


ROWS: Final = (
    Row(*BARE, "bare ioctl", None, BARE[1]),
    *_accesses(NATIVE_OFF, 0.10, 0.9),
    *_accesses(NATIVE, 0.25, 0.9),
    Row(NATIVE, ROUND_TRIP, "ioctl that the server answers", 12, ROUND_TRIP),
    Row(NATIVE, MODE_CHANGE, "set of SVCR, mode change", 25, MODE_CHANGE),
    Row(NATIVE, OUR_SAVE, OUR_SAVE, 150, SAVE),
    Row(NATIVE, OUR_RESTORE, OUR_RESTORE, 300, RESTORE),
    *_accesses(ARM64_OFF, 1, 1),
    *_accesses(ARM64, 1, 1),
    Row(ARM64, ROUND_TRIP, "ioctl that the server answers", None, ROUND_TRIP),
    Row(ARM64, OUR_SAVE, OUR_SAVE, None, SAVE),
    Row(ARM64, OUR_RESTORE, OUR_RESTORE, None, RESTORE),
    Row(STATIC, STACK_GET, STACK_GET, 12, STACK_GET),
    Row(STATIC, STACK_SET, STACK_SET, 12, STACK_SET),
    Row(STATIC, ROUND_TRIP, "other ioctl", 12, ROUND_TRIP),
    Row(STATIC, OUR_SAVE, OUR_SAVE, None, SAVE),
    Row(STATIC, OUR_RESTORE, OUR_RESTORE, None, RESTORE),
    Row(PYTHON, 'vcpu["x0"], nobody watching', 'vcpu["x0"]', 1.5, STACK_GET),
    Row(PYTHON, 'vcpu["x0"], checker watching', 'vcpu["x0"], checker watching', 3, STACK_GET),
    Row(PYTHON, "Kvm.ioctl(KVM_GET_ONE_REG), nobody watching", "Kvm.ioctl(KVM_GET_ONE_REG)", None, STACK_GET),
    Row(PYTHON, "save of 415 registers, nobody watching", "save of 415 registers"),
    Row(STARTUP, "run", "kvmabi run -- true", 120_000, BOOT),
    Row(REPLAY, "step", "a recorded step on the model"),
)

RECORDED: Final = {
    **dict.fromkeys((STACK_GET, STACK_SET, HEAP_GET, OTHER_GET, OTHER_SET, ROUND_TRIP), 3.2),
    SAVE: 2200.0,
    BOOT: 900_000.0,
}
"""µs of a minimal kernel with SME in QEMU 11's TCG on a machine with 2 processors; the save is of 543 registers."""
