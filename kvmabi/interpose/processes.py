# SPDX-License-Identifier: MIT
"""What the kernel says of other processes and their threads: proc(5) and kcmp(2)."""

from __future__ import annotations

import ctypes
import os

KCMP = {"x86_64": 312, "aarch64": 272}
"""The number of kcmp(2), which the C library does not have."""
KCMP_VM = 1


def status(thread: int) -> dict[str, str]:
    """The fields of /proc/THREAD/status, none if the thread has ended."""
    try:
        with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as file:
            return {name: value.strip() for name, _colon, value in (line.partition(":") for line in file)}
    except OSError:
        return {}


def pending_signals(thread: int, sigmask: bytes | None) -> tuple[int, int]:
    """The signals that end a thread's KVM_RUN, one bit each: its own, and those of its process."""
    fields = status(thread)
    if not fields:
        return 0, 0
    blocked = int(fields["SigBlk"], 16) if sigmask is None else int.from_bytes(sigmask, "little")
    return int(fields["SigPnd"], 16) & ~blocked, int(fields["ShdPnd"], 16) & ~blocked


def start_of_stack(pid: int) -> str:
    """Where the stack of a process starts, which is random for each exec; proc(5), field 28 of stat."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[25]
    except OSError:
        return ""


def share_memory(pid: int, other: int) -> bool:
    """Whether two processes have one address space, as after vfork; kcmp(2)."""
    number = KCMP.get(os.uname().machine)
    return number is not None and bool(ctypes.CDLL(None).syscall(number, pid, other, KCMP_VM, 0, 0) == 0)
