# SPDX-License-Identifier: MIT
"""Runs a program with the interposer, and serves it and its descendants."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from kvmabi.device import DeviceFile
from kvmabi.errors import UsageError
from kvmabi.interpose.descendants import Descendants
from kvmabi.interpose.program import CannotRun, Kind, check, find
from kvmabi.interpose.protocol import SOCKET_VARIABLE
from kvmabi.interpose.server import Server
from kvmabi.interpose.signals import Signals

PRELOAD = Path(__file__).with_name("preload.so")
OWN_FAILURE = 125
SIGNALLED = 128
SOCKET_PATH_BYTES = 107
"""What struct sockaddr_un holds, less the final zero."""
GRACE_SECONDS = 2.0
"""How long to wait, after the program ended, for descendants that do not use KVM yet."""
LOOK_SECONDS = 0.02
SHELL = "/bin/sh"
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
UNPRELOADABLE = re.compile(r"[\s:$]")
"""Characters that a path in LD_PRELOAD cannot contain: separators, and the start of a token."""


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
    system: DeviceFile,
    *,
    environment: Mapping[str, str] | None = None,
    preload: Path = PRELOAD,
) -> ExitStatus:
    """Run a program whose /dev/kvm is ``system``; returns when it ended and its descendants no longer use KVM.

    ``environment`` is the program's, by default this process's. Errors: CannotRun (126 or 127), UsageError.
    """
    if not argv:
        raise UsageError("no program to run")
    variables = dict(os.environ if environment is None else environment)
    file = find(argv[0], variables.get("PATH", os.defpath))
    way = check(file)
    transport = TRANSPORTS.get(way.kind)
    if transport is None:
        raise UsageError(way.obstacle)
    if not preload.is_file():
        raise UsageError(f"{preload} does not exist: the interposer was not built")
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        folder = stack.enter_context(_socket_folder())
        server = Server(folder / "socket", system)
        stack.callback(server.close)
        descendants = stack.enter_context(Descendants())
        variables |= transport(variables, preload, folder)
        pid = _spawn(file, argv, variables)
        signals.pass_to(pid)
        stack.enter_context(_many_fds())
        status = _serve_program(server, pid)
        signals.pass_to(None)
        _serve_rest(server, descendants, signals)
    return ExitStatus(status, server.failures)


def _serve_program(server: Server, pid: int) -> int:
    """Serve until the process ended; returns its exit status as a shell reports it."""
    ended = os.pidfd_open(pid)
    try:
        server.watch(ended)
        while not server.step():
            pass
    finally:
        os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else SIGNALLED - code


def _serve_rest(server: Server, descendants: Descendants, signals: Signals) -> None:
    """Serve the program's descendants while they use KVM or may be about to."""
    deadline = time.monotonic() + GRACE_SECONDS
    server.step(0)
    while not signals.stop:
        if server.in_use:
            deadline = time.monotonic() + GRACE_SECONDS
        elif not descendants.alive() or time.monotonic() >= deadline:
            return
        server.step(LOOK_SECONDS)


def _spawn(file: str, argv: Sequence[str], variables: Mapping[str, str]) -> int:
    """Start the program as execvp(3) would; returns its pid. Errors: CannotRun."""
    try:
        return os.posix_spawn(file, list(argv), variables, setsigdef=IGNORED_BY_PYTHON)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise CannotRun(argv[0], error) from error
    return _spawn(SHELL, [SHELL, file, *argv[1:]], variables)  # neither a program nor a script that names its shell


def _interposed(variables: Mapping[str, str], preload: Path, folder: Path) -> dict[str, str]:
    """The environment variables that preload the interposer into the program, after the program's own preloads."""
    before = variables.get("LD_PRELOAD")
    library = _preloadable(preload.absolute(), folder)
    added = {SOCKET_VARIABLE: str(folder / "socket"), "LD_PRELOAD": f"{before}:{library}" if before else library}
    sanitizer = variables.get("ASAN_OPTIONS", "")
    if "verify_asan_link_order" not in sanitizer:  # a program built with ASan refuses libraries before ASan's
        added["ASAN_OPTIONS"] = f"{sanitizer}:verify_asan_link_order=0".lstrip(":")
    return added


Transport = Callable[[Mapping[str, str], Path, Path], Mapping[str, str]]
TRANSPORTS: dict[Kind, Transport] = {Kind.PRELOADABLE: _interposed}
"""How the calls of each kind of program reach the server: a function of the program's environment, the preloaded
library and the socket's folder, which returns variables to add to the environment. Other kinds are refused."""


def _preloadable(library: Path, folder: Path) -> str:
    """A path to the library that LD_PRELOAD can hold, through a symbolic link if necessary."""
    if not UNPRELOADABLE.search(str(library)):
        return str(library)
    link = folder / library.name
    if UNPRELOADABLE.search(str(link)):
        raise UsageError(f"neither {library} nor {link} can be preloaded: their paths contain white space, ':' or '$'")
    link.symlink_to(library)
    return str(link)


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
            if len(os.fsencode(folder / "socket")) <= SOCKET_PATH_BYTES:
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
