# SPDX-License-Identifier: MIT
"""How the calls of each kind of program reach the server: a table of functions that start the program."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvmabi.errors import UsageError
from kvmabi.interpose import libraries, qemuuser, seccomp
from kvmabi.interpose.entrance import Entrance
from kvmabi.interpose.program import CannotRun, Kind, Way
from kvmabi.interpose.protocol import SOCKET_VARIABLE

SHELL = "/bin/sh"
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True)
class Order:
    """A program to start: the ``file`` that ``argv`` names, its environment, and how it can be run.

    ``folder`` holds the socket of the ``entrance``. ``preload`` is the interposer for programs of this machine,
    ``arm64`` the one for arm64 programs (None: found or built if needed), ``sysroot`` the folder of their libraries.
    """

    file: str
    argv: Sequence[str]
    variables: Mapping[str, str]
    way: Way
    folder: Path
    entrance: Entrance
    preload: Path
    arm64: Path | None = None
    sysroot: Path | None = None


def preloaded(order: Order) -> int:
    """Starts a program of this machine with the interposer; if it can be, also the arm64 programs that it starts."""
    library = libraries.preloadable(order.preload.absolute(), order.folder)
    added: dict[str, str] = {}
    try:
        if os.uname().machine != libraries.ARM64_PLATFORM:
            qemu = qemuuser.find(order.sysroot)
            library, added = libraries.for_both(order.preload, _arm64(order), order.folder), qemu.variables
    except UsageError:
        if order.sysroot is not None:
            raise
    return spawn(order.file, order.argv, _interposed(order, library) | added)


def emulated(order: Order) -> int:
    """Starts an arm64 program under qemu-user with the interposer. Errors: UsageError if something is missing."""
    if not os.access(order.file, os.X_OK):
        raise CannotRun(order.argv[0], PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    qemu = qemuuser.find(order.sysroot)
    library = libraries.for_both(order.preload, _arm64(order), order.folder)
    variables = _interposed(order, library) | qemu.variables
    return spawn(qemu.qemu, qemu.command(order.file, order.way, order.argv, variables), variables)


def notified(order: Order) -> int:
    """Starts a program of this machine under a seccomp filter that has the kernel ask the server for its calls."""
    pid, listener = seccomp.spawn(order.file, order.argv, order.variables, IGNORED_BY_PYTHON)
    order.entrance.listen(listener)
    return pid


Transport = Callable[[Order], int]
TRANSPORTS: dict[Kind, Transport] = {
    Kind.PRELOADABLE: preloaded,
    Kind.EMULATED: emulated,
    Kind.STATIC: notified,
}
"""Each starts a program and returns its pid. Other kinds are refused. Errors: CannotRun, UsageError."""
PRELOAD, SECCOMP = "preload", "seccomp"


def chosen(way: Way, wanted: str | None) -> Transport:
    """The transport for a program, by default that of its kind. Errors: UsageError if it cannot be reached by it."""
    if wanted == SECCOMP and way.kind is Kind.PRELOADABLE:
        return notified
    transport = TRANSPORTS.get(way.kind)
    if transport is None or (wanted == PRELOAD and transport is notified):
        raise UsageError(way.obstacle)
    if wanted == SECCOMP and transport is not notified:
        raise UsageError(f"{way.file} runs through qemu-user, which makes its system calls: --transport preload only")
    return transport


def spawn(file: str, argv: Sequence[str], variables: Mapping[str, str]) -> int:
    """Start the program as execvp(3) would; returns its pid. Errors: CannotRun."""
    try:
        return os.posix_spawn(file, list(argv), variables, setsigdef=IGNORED_BY_PYTHON)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise CannotRun(argv[0], error) from error
    return spawn(SHELL, [SHELL, file, *argv[1:]], variables)  # neither a program nor a script that names its shell


def _arm64(order: Order) -> Path:
    return order.arm64 or libraries.arm64_library(order.folder)


def _interposed(order: Order, library: str) -> dict[str, str]:
    """The environment that preloads the interposer into the program, after the program's own preloads."""
    before = order.variables.get("LD_PRELOAD")
    added = {
        SOCKET_VARIABLE: str(order.folder / "socket"),
        "LD_PRELOAD": f"{before}:{library}" if before else library,
    }
    sanitizer = order.variables.get("ASAN_OPTIONS", "")
    if "verify_asan_link_order" not in sanitizer:  # a program built with ASan refuses libraries before ASan's
        added["ASAN_OPTIONS"] = f"{sanitizer}:verify_asan_link_order=0".lstrip(":")
    return {**order.variables, **added}
