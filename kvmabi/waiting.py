# SPDX-License-Identifier: MIT
"""Waits as a thread in KVM_RUN does: until a signal arrives that is not blocked, or a while, without missing one."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable

SIGSET_WORDS = 16
"""The C library's sigset_t has 1024 bits, more than the kernel uses."""
SFD_CLOEXEC = os.O_CLOEXEC
POLLIN = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def wait_for_signal(run_mask: bytes | None, again_ms: int = 0) -> bool:
    """Block the calling thread until a signal comes that is not blocked; returns whether one did.

    ``again_ms`` is how long to wait at most, in milliseconds (0: for ever).

    ``run_mask`` is the mask of KVM_SET_SIGNAL_MASK, 8 bytes, None for the thread's own. A signal that the thread
    blocks and the run mask does not ends the wait and stays pending, as in the kernel; others run their handlers.
    """
    thread_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        blocked_in_run = set(thread_mask) if run_mask is None else _signals(run_mask)
        left_pending = thread_mask - blocked_in_run
        watched = _libc.signalfd(-1, _sigset(left_pending), SFD_CLOEXEC) if left_pending else -1
        blocked = blocked_in_run | thread_mask if watched >= 0 else blocked_in_run  # without signalfd handlers run
        time = ctypes.byref(_Time(*divmod(again_ms * 1_000_000, 1_000_000_000))) if again_ms else None
        ready = _libc.ppoll(ctypes.byref(_PollFd(watched, POLLIN, 0)), ctypes.c_ulong(1), time, _sigset(blocked))
        if watched >= 0:
            os.close(watched)
        return bool(ready)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, thread_mask)


def _signals(mask: bytes) -> set[int]:
    """The signals of a kernel's mask: bit 0 is signal 1."""
    bits = int.from_bytes(mask, "little")
    return {number for number in range(1, 8 * len(mask) + 1) if bits >> (number - 1) & 1}


def _sigset(numbers: Iterable[int]) -> ctypes.Array[ctypes.c_ulong]:
    """A sigset_t of the C library."""
    words = [0] * SIGSET_WORDS
    for number in numbers:
        words[(number - 1) // 64] |= 1 << (number - 1) % 64
    return (ctypes.c_ulong * SIGSET_WORDS)(*words)
