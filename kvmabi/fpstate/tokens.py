# SPDX-License-Identifier: MIT
"""Tokens: the abstract contents of a register or a memory copy.

A token is ZERO, JUNK (written by code that is not modelled as an owner, such as NEON code in a softirq) or
the *fresh* or *stale* value of an owner. An owner is the user state of a task (U), its kernel-mode NEON
section (K) or a vCPU (G). When an owner writes, all copies of its old fresh token become stale. The
invariants need no more history than that, so the state space is finite without counters.

Encoding: owner = kind * 4 + index; token = 2 + 2 * owner for fresh, one more for stale.
"""

from __future__ import annotations

LIMIT = 4
"""The maximum number of tasks, and of vCPUs, in the encoding."""

ZERO = 0
JUNK = 1
NOBODY = -1

_KINDS = "UKG"
_WORDS = {"U": "u(T{})", "K": "k(T{})", "G": "g(V{})"}


def user(task: int) -> int:
    """The owner number of the user state of a task."""
    return task


def kernel(task: int) -> int:
    """The owner number of a task's kernel-mode NEON section."""
    return LIMIT + task


def guest(vcpu: int) -> int:
    """The owner number of a vCPU."""
    return 2 * LIMIT + vcpu


def fresh(owner: int) -> int:
    """The token of the owner's newest value."""
    return 2 + 2 * owner


def stale(owner: int) -> int:
    """The token of any older value of the owner."""
    return 3 + 2 * owner


def owner_of(token: int) -> int:
    """The owner of a token; NOBODY for ZERO and JUNK."""
    return (token - 2) >> 1 if token >= 2 else NOBODY


def is_guest(owner: int) -> bool:
    """Whether the owner is a vCPU."""
    return owner >= 2 * LIMIT


def is_user(owner: int) -> bool:
    """Whether the owner is the user state of a task."""
    return 0 <= owner < LIMIT


def owner_name(owner: int) -> str:
    """The name of an owner in fpsimd_last_state.st: "U(T0)", "K(T1)", "G(V0)", "None"."""
    if owner == NOBODY:
        return "None"
    kind = _KINDS[owner // LIMIT]
    return f"{kind}({'V' if kind == 'G' else 'T'}{owner % LIMIT})"


def name(token: int) -> str:
    """The name of a token in timelines: "0", "junk", "u(T0)", "u(T0)old"."""
    if token == ZERO:
        return "0"
    if token == JUNK:
        return "junk"
    owner = owner_of(token)
    text = _WORDS[_KINDS[owner // LIMIT]].format(owner % LIMIT)
    return text + ("old" if token & 1 else "")


def rename_owner(owner: int, tasks: tuple[int, ...]) -> int:
    """The owner after task i became task tasks[i]; vCPUs keep their names."""
    if owner == NOBODY or is_guest(owner):
        return owner
    return owner - owner % LIMIT + tasks[owner % LIMIT]


def rename(token: int, tasks: tuple[int, ...]) -> int:
    """The token after task i became task tasks[i]."""
    if token < 2:
        return token
    return 2 + 2 * rename_owner((token - 2) >> 1, tasks) + (token & 1)


def difference(seen: int, wanted: int) -> str:
    """The kind of a wrong value, given the expected one: "leak", "stale" or "lost".

    A leak is another owner's value, stale an older value of the same owner, lost is zero.
    """
    if seen == ZERO:
        return "lost"
    if seen == JUNK or (wanted >= 2 and owner_of(seen) != owner_of(wanted)):
        return "leak"
    return "stale"
