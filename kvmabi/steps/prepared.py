# SPDX-License-Identifier: MIT
"""What the words of the steps that traces are full of become before they are done: gets and sets of registers."""

from __future__ import annotations

from collections.abc import Callable

from kvmabi import uapi
from kvmabi.steps.grammar import MAX_REGISTER_BYTES, UNTOUCHED, File, pattern
from kvmabi.steps.structs import ONE_REG


def _ready_to_get(payload: int, file: File, id: int) -> tuple[File, bytes, bytes]:
    """What a get needs of an id: the struct, and what the buffer is filled with."""
    return file, ONE_REG.pack(id, payload), FILLS[id >> uapi.KVM_REG_SIZE_SHIFT & 0xF]


def _ready_to_set(payload: int, file: File, id: int, data: bytes) -> tuple[File, bytes, bytes]:
    return file, ONE_REG.pack(id, payload), data


def _ready_to_set_pattern(payload: int, file: File, id: int, seed: int) -> tuple[File, bytes, bytes]:
    return file, ONE_REG.pack(id, payload), pattern(seed % 256)


FILLS = [bytes((UNTOUCHED,)) * min(1 << log2, MAX_REGISTER_BYTES) for log2 in range(16)]
"""The untouched buffer of a register, by the logarithm of its size."""

PREPARED: dict[str, Callable[..., tuple[File, bytes, bytes]]] = {
    "G": _ready_to_get,
    "S": _ready_to_set,
    "P": _ready_to_set_pattern,
}
"""For steps that traces are full of: what becomes of their words before they are done."""
