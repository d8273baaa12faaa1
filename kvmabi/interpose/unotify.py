# SPDX-License-Identifier: MIT
"""The kernel's interface to system calls that a filter has it ask for (seccomp_unotify(2)), and who answers at last."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct

RECV, SEND, ID_VALID, ADDFD, SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104
"""SECCOMP_IOCTL_NOTIF_*."""
SYNC_WAKE_UP = 1
"""The caller runs on this processor once the server sleeps: a wake-up of another takes longer. Since Linux 6.6."""
NOTIFICATION = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, pid (the thread's), flags, nr, arch, instruction_pointer, args."""
RESPONSE = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, val, error, flags."""
NEW_DESCRIPTOR = struct.Struct("=QIIII")
"""struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags."""
ADDFD_SEND = 1 << 1
CONTINUE = 1


def leave_to_the_kernel(listener: int) -> None:
    """Start a process that lets the kernel do all calls of the filter's processes, until the last has ended."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            os.setsid()
            os.dup2(listener, 0)
            os.closerange(1, os.sysconf("SC_OPEN_MAX"))
            _continue_all(0)
    finally:
        os._exit(0)


def _continue_all(listener: int) -> None:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while all(events & select.POLLIN for _fd, events in poll.poll()):
        with contextlib.suppress(OSError):
            room = bytearray(NOTIFICATION.size)
            fcntl.ioctl(listener, RECV, room, True)
            fcntl.ioctl(listener, SEND, RESPONSE.pack(NOTIFICATION.unpack(room)[0], 0, 0, CONTINUE))
