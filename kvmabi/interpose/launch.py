# SPDX-License-Identifier: MIT
"""Runs a program with the interposer, and serves it and its descendants."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kvmabi.errors import UsageError
from kvmabi.interpose.descendants import Descendants
from kvmabi.interpose.entrance import Entrance
from kvmabi.interpose.libraries import PRELOAD
from kvmabi.interpose.program import check, find
from kvmabi.interpose.protocol import REAL_SOCKET
from kvmabi.interpose.signals import Signals
from kvmabi.interpose.transports import TRANSPORTS as TRANSPORTS
from kvmabi.interpose.transports import Order, chosen, watched

if TYPE_CHECKING:
    from kvmabi.device import DeviceFile
    from kvmabi.events import EventLog
    from kvmabi.faults import Faults
    from kvmabi.guests.scripts import Script
    from kvmabi.profiles import Host, Kernel

OWN_FAILURE = 125
SOCKET = "socket"
SIGNALLED = 128
SOCKET_PATH_BYTES = 107
"""What struct sockaddr_un holds, less the final zero."""
GRACE_SECONDS = 2.0
"""How long to wait, after the program ended, for descendants that do not use KVM yet."""
LOOK_SECONDS = 0.02


class ExitStatus(NamedTuple):
    """How a run ended: the program's own status (128 + S if signal S ended it), and failures of kvmabi's own."""

    program: int
    failures: int

    @property
    def code(self) -> int:
        """The exit status of the whole: 125 after a failure of kvmabi's own, else the program's."""
        return OWN_FAILURE if self.failures else self.program


def run(
    argv: Sequence[str],
    system: DeviceFile | Callable[[], DeviceFile],
    *,
    environment: Mapping[str, str] | None = None,
    preload: Path = PRELOAD,
    arm64: Path | None = None,
    sysroot: Path | None = None,
    transport: str | None = None,
    real: bool = False,
) -> ExitStatus:
    """Run a program with an emulated /dev/kvm; returns when it ended and its descendants no longer use KVM.

    ``system`` is the file behind /dev/kvm, or returns it: it is called when the first process needs it, if one does.

    ``environment`` is the program's, by default this process's. ``preload`` and ``arm64`` are the interposers for
    programs of this machine and for arm64 programs on it, which have their libraries below ``sysroot``; None: kvmabi's
    own, the system's. ``transport`` is "preload" or "seccomp", None: by the kind of program. ``real``: the program has
    the machine's own /dev/kvm, and what it does there goes to the log of ``system``. Errors: CannotRun (126 or 127),
    UsageError.
    """
    if not argv:
        raise UsageError("no program to run")
    variables = dict(os.environ if environment is None else environment)
    file = find(argv[0], variables.get("PATH", os.defpath))
    way = check(file)
    start = watched(way, transport) if real else chosen(way, transport)
    if not preload.is_file():
        raise UsageError(f"{preload} does not exist: the interposer was not built")
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        folder = stack.enter_context(_socket_folder())
        place = folder / (REAL_SOCKET if real else SOCKET)
        entrance = Entrance(place, system if callable(system) else lambda: system)
        stack.callback(entrance.close)
        descendants = stack.enter_context(Descendants())
        pid = start(Order(file, argv, variables, way, folder, entrance, preload, arm64, sysroot))
        signals.pass_to(pid)
        stack.enter_context(_many_fds())
        status = _serve_program(entrance, pid)
        signals.pass_to(None)
        _serve_rest(entrance, descendants, signals)
    return ExitStatus(status, entrance.failures)


def opener(
    host: Host, kernel: Kernel, log: EventLog, script: Script | None = None, faults: Faults | None = None
) -> Callable[[], DeviceFile]:
    """A ``system`` for `run`: the rooms that answer for /dev/kvm are imported when the program first opens it."""

    def opened() -> DeviceFile:
        from kvmabi.device import open_system

        return open_system(host, kernel, log, script, faults)

    return opened


def _serve_program(entrance: Entrance, pid: int) -> int:
    """Serve until the process ended; returns its exit status as a shell reports it."""
    ended = os.pidfd_open(pid)
    try:
        entrance.watch(ended)
        while not entrance.step():
            pass
    finally:
        os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else SIGNALLED - code


def _serve_rest(entrance: Entrance, descendants: Descendants, signals: Signals) -> None:
    """Serve the program's descendants while they use KVM or may be about to."""
    deadline = time.monotonic() + GRACE_SECONDS
    entrance.step(0)
    while not signals.stop:
        if entrance.in_use:
            deadline = time.monotonic() + GRACE_SECONDS
        elif not descendants.alive() or time.monotonic() >= deadline:
            return
        entrance.step(LOOK_SECONDS)


@contextmanager
def _socket_folder() -> Iterator[Path]:
    """A new folder that only this user can access."""
    parents = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]
    for parent in filter(None, parents):
        try:
            folder = Path(tempfile.mkdtemp(prefix="kvmabi-", dir=parent))
        except OSError:
            continue
        try:
            if len(os.fsencode(folder / SOCKET)) <= SOCKET_PATH_BYTES:
                yield folder
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    raise UsageError(f"no folder for a socket: none of {', '.join(filter(None, parents))} can be used")


@contextmanager
def _many_fds() -> Iterator[None]:
    """Raise this process's limit of fds to the hard limit: every vCPU takes several. The program is not affected."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
