# SPDX-License-Identifier: MIT
"""A seccomp filter that asks this process for the system calls that can concern /dev/kvm: seccomp_unotify(2).

The filter sees numbers only, not what pointers lead to. So all calls that take a path are asked for, and ioctls of
KVM's type; `notified.py` answers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from kvmabi.errors import UsageError
from kvmabi.interpose.program import CannotRun

PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER = 1
NEW_LISTENER = 1 << 3
WAIT_KILLABLE_RECV = 1 << 5
"""A call that was received waits for its answer, signals or not; since Linux 5.19."""
RET_ALLOW, RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
NUMBER, ARCHITECTURE, SECOND_ARGUMENT = 0, 4, 24
"""Offsets in struct seccomp_data; of the argument the low 32 bits."""
LOAD, EQUAL, AT_LEAST, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
"""The codes of BPF: load a word, compare it with a constant and jump, mask it, return a constant."""
INSTRUCTION = struct.Struct("=HBBI")
KVM_TYPE, TYPE_MASK = 0xAE << 8, 0xFF << 8
X32 = 0x40000000
"""The calls of the x32 ABI are numbered from here."""


class Calls(NamedTuple):
    """A machine's calls: AUDIT_ARCH_*, the number of seccomp(2), and the names of those that are asked for."""

    architecture: int
    seccomp: int
    names: Mapping[int, str]


MACHINES = {
    "x86_64": Calls(
        0xC000003E,
        317,
        {
            **{2: "open", 4: "stat", 6: "lstat", 16: "ioctl", 21: "access", 85: "creat", 257: "openat"},
            **{262: "newfstatat", 269: "faccessat", 332: "statx", 437: "openat2", 439: "faccessat2"},
        },
    ),
    "aarch64": Calls(
        0xC00000B7,
        277,
        {
            **{29: "ioctl", 48: "faccessat", 56: "openat", 79: "newfstatat"},
            **{291: "statx", 437: "openat2", 439: "faccessat2"},
        },
    ),
}


def calls() -> Calls:
    """Those of this machine. Errors: UsageError."""
    known = MACHINES.get(os.uname().machine)
    if known is None:
        raise UsageError(f"programs without a preloaded library are served on {', '.join(MACHINES)} only")
    return known


def program(machine: Calls) -> bytes:
    """The filter as BPF: ask for the calls that are named and for ioctls of KVM's type, allow all else."""
    plain = [number for number, name in machine.names.items() if name != "ioctl"]
    (ioctl,) = (number for number, name in machine.names.items() if name == "ioctl")
    tail = len(plain) + 1
    code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 0, 2 + tail, machine.architecture),  # another one: allow
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, tail, 0, X32),
        (EQUAL, tail, 0, ioctl),
        *((EQUAL, tail + 3 - place, 0, number) for place, number in enumerate(plain)),
        (RETURN, 0, 0, RET_ALLOW),
        (LOAD, 0, 0, SECOND_ARGUMENT),
        (AND, 0, 0, TYPE_MASK),
        (EQUAL, 1, 0, KVM_TYPE),
        (RETURN, 0, 0, RET_ALLOW),
        (RETURN, 0, 0, RET_USER_NOTIF),
    ]
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in code)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def spawn(file: str, argv: Sequence[str], variables: Mapping[str, str], ignored: Sequence[int]) -> tuple[int, int]:
    """Start a program under the filter, with the default for the ``ignored`` signals; returns its pid and the listener.

    Its descendants are under the filter as well. Errors: CannotRun, UsageError where the kernel refuses the filter.
    """
    machine = calls()
    code = program(machine)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    libc = ctypes.CDLL(None, use_errno=True)
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            _exec(libc, machine.seccomp, code, theirs, (file, argv, variables), ignored)
        theirs.close()
        message, fds, _flags, _address = socket.recv_fds(ours, 64, 1)
        failed = message if not fds else ours.recv(64)
    if not failed:
        return pid, fds[0]
    os.waitpid(pid, 0)
    for fd in fds:
        os.close(fd)
    error = OSError(int(failed), os.strerror(int(failed)))
    if fds:
        raise CannotRun(argv[0], error)
    raise UsageError(f"the kernel refuses a seccomp filter with a listener: {error.strerror}")


def _exec(
    libc: ctypes.CDLL,
    number: int,
    code: bytes,
    to: socket.socket,
    words: tuple[str, Sequence[str], Mapping[str, str]],
    ignored: Sequence[int],
) -> NoReturn:
    """In the child: install the filter, send the listener, exec. After the filter nothing may open a file."""
    file, argv, variables = words
    try:
        for name in ignored:
            signal.signal(name, signal.SIG_DFL)
        filter_program = _Program(len(code) // INSTRUCTION.size, code)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        listener = -1
        for flags in (NEW_LISTENER | WAIT_KILLABLE_RECV, NEW_LISTENER):
            if listener < 0:
                listener = libc.syscall(number, SET_MODE_FILTER, flags, ctypes.byref(filter_program))
        if listener < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        socket.send_fds(to, [b"listener"], [listener])
        os.close(listener)
        os.execve(file, list(argv), variables)
    except OSError as error:
        to.send(b"%d" % (error.errno or errno.EIO))
    finally:
        os._exit(127)
