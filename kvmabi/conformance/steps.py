# SPDX-License-Identifier: MIT
"""The language that every backend speaks: one ioctl a line, answered by one line.

The steps of recorded traces (kvmabi.replay.trace) and a few more. V is a vCPU's number, in the
order of creation; F is ``s`` for the system's file, ``v`` for the VM's or a vCPU's number. Ids, feature words, requests
and arguments are hex without 0x, other numbers decimal; bytes are hex in which ``bb*count.`` is a run.

=================  =========================================================================================
N n                close everything; a new VM with vCPUs 0 to n-1. Every independent sequence begins with it
V n                KVM_CREATE_VCPU n
W capability       KVM_ENABLE_CAP on the VM
I V target w       KVM_ARM_VCPU_INIT with one word of features
i V target w0..w6  the same with all seven
F V feature        KVM_ARM_VCPU_FINALIZE
G V id             KVM_GET_ONE_REG: OK and the bytes; ``!touched`` if a failing one wrote
S V id bytes       KVM_SET_ONE_REG of the bytes and zeroes behind them
P V id seed        KVM_SET_ONE_REG of a pattern: byte i is (seed + 7 i + (i >> 4)) mod 256
B V id, b V id     KVM_GET_ONE_REG, KVM_SET_ONE_REG with an unmapped address
g V id n           KVM_GET_ONE_REG into a buffer of which n bytes are mapped; the answer is the errno only
s V id n seed      KVM_SET_ONE_REG of a pattern from a buffer of which n bytes are mapped
L V n              KVM_GET_REG_LIST with that n and room for 4096: OK or errno, n afterwards, the ids
l V n m            KVM_GET_REG_LIST with that n, of whose array m ids are mapped: the errno and n afterwards
M                  KVM_ARM_GET_REG_WRITABLE_MASKS: OK and id=mask of every mask that is not 0
R V                KVM_RUN with kvm_run.immediate_exit
X F request arg    any ioctl that takes a number, or gets one as a bad pointer: OK and the result
A F request        any ioctl on a zeroed struct: OK and the struct afterwards
D type flags       KVM_CREATE_DEVICE on the VM; the devices made are files ``d0``, ``d1``, ...
h F group attr v   KVM_HAS_DEVICE_ATTR; group decimal, attr and the value's 8 bytes hex, v ``-``: an unmapped address
o F group attr v   KVM_SET_DEVICE_ATTR
q F group attr v   KVM_GET_DEVICE_ATTR: OK and the value
Q                  OK and the CPU features that the host's kernel tells userspace
=================  =========================================================================================

https://docs.kernel.org/virt/kvm/api.html
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

WORDS: Final = {
    "N": 1,
    "V": 1,
    "W": 1,
    "I": 3,
    "i": 9,
    "F": 2,
    "G": 2,
    "S": 3,
    "P": 3,
    "B": 2,
    "b": 2,
    "g": 3,
    "s": 4,
    "L": 2,
    "l": 3,
    "M": 0,
    "R": 1,
    "X": 3,
    "A": 2,
    "D": 2,
    "h": 4,
    "o": 4,
    "q": 4,
    "Q": 0,
}
"""How many words follow a step's letter."""

UNMAPPED: Final = 0x10
"""The address of ``B`` and ``b``."""
UNTOUCHED: Final = 0xAA
"""What the buffer of ``G`` is filled with."""
MAX_IDS: Final = 4096
"""Room for ids in the array of ``L``."""
MAX_DEVICES: Final = 4
"""How many of a VM's devices are kept, as files ``d0`` and so on."""
MAX_REGISTER_BYTES: Final = 2048
"""A pattern's length, and how much of a buffer an answer shows."""


@lru_cache(512)
def pattern(seed: int, size: int = MAX_REGISTER_BYTES) -> bytes:
    """The bytes that ``P`` and ``s`` write."""
    return bytes((seed + 7 * i + (i >> 4)) % 256 for i in range(size))
