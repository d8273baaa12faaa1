# SPDX-License-Identifier: MIT
"""Runs a VMM's binary on an emulated /dev/kvm, as ``kvmabi run`` does, and returns what happened as objects."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kvmabi.errors import UsageError
from kvmabi.events import Event
from kvmabi.guests import scripts
from kvmabi.guests.board import GuestError
from kvmabi.guests.scripts import GuestFunction
from kvmabi.order import Finding, NotJudged, Pair, Verdict
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.testing import records

TIMEOUT_SECONDS = 60.0
GRACE_SECONDS = 2.0
"""How long a program that is told to end may take."""


@dataclass(frozen=True)
class VmmRun:
    """How a program ended and what it did to ``/dev/kvm``.

    ``status`` is its exit status as a shell reports it (128 + S if signal S ended it). ``stdout`` and ``stderr`` are
    what it printed, ``events`` its last 10,000 ioctls.
    """

    argv: tuple[str, ...]
    status: int
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)
    verdict: Verdict = field(repr=False)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was lost."""
        return self.verdict.findings

    @property
    def judged(self) -> tuple[Pair, ...]:
        """The restores that were compared with a save."""
        return self.verdict.judged

    @property
    def not_judged(self) -> tuple[NotJudged, ...]:
        """The vCPUs that were not, each with the reason."""
        return self.verdict.not_judged


def run_program(
    program: str | os.PathLike[str],
    *arguments: str | os.PathLike[str],
    host: str | Host = "sme-demo",
    kernel: str | Kernel | None = None,
    ignored: Iterable[int] = (),
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    saves: str | os.PathLike[str] | None = None,
    guest: str | GuestFunction | None = None,
    faults: Iterable[str] = (),
    fault_seed: int = 0,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> VmmRun:
    """Run a program as ``kvmabi run`` does; its ``/dev/kvm`` is an emulated one.

    ``ignored`` are the IDs of registers that findings leave out, ``env`` is the program's whole environment (None: this
    process's). Its standard input is empty. ``saves`` is a folder in which every save is kept, for a later run that
    restores it. ``guest`` runs on every vCPU: "FILE.py:NAME", or a generator function of a module (kvmabi.guests),
    which the process that serves the program imports as a file. ``faults`` are rules by which ioctls fail or are late
    (kvmabi.faults), ``fault_seed`` decides where a rule has a probability. Raises UsageError for a program that cannot
    be run and for what is not a kernel, a guest or a rule, GuestError if the guest fails, TimeoutError if the program
    does not end in time: it is killed.
    """
    argv = tuple(os.fspath(word) for word in (program, *arguments))
    used_host = load_host(host)
    order = {
        "argv": argv,
        "host": records.host_data(used_host),
        "kernel": _kernel_name(used_host.kernel if kernel is None else kernel),
        "ignored": list(ignored),
        "guest": None if guest is None else scripts.named(guest),
        "faults": list(faults),
        "fault_seed": fault_seed,
        "saves": None if saves is None else os.path.abspath(saves),
        "environment": dict(os.environ if env is None else env),
    }
    with tempfile.TemporaryDirectory(prefix="kvmabi-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "order").write_text(json.dumps(order), "utf-8")
        stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        words = [sys.executable, "-P", "-m", "kvmabi.testing.served", str(folder / "order"), str(folder / "answer")]
        server = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, "XDG_RUNTIME_DIR": name},  # its socket goes with the folder, also if it is killed
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            server.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{argv[0]} did not end within {timeout_seconds:g} s{_tail(stdout)}{_tail(stderr)}"
            ) from None
        finally:
            _end(server)
        answer = folder / "answer"
        if not answer.exists():
            raise RuntimeError(f"kvmabi could not serve {argv[0]}:{_tail(stderr)}")
        data = json.loads(answer.read_text("utf-8"))
        if "error" in data:
            raise UsageError(data["error"])
        if data["failures"]:
            raise RuntimeError(f"kvmabi failed while it served {argv[0]}:{_tail(stderr)}")
        if data["guest_failures"]:
            raise GuestError(data["guest_failures"][0])
        return VmmRun(
            argv,
            data["status"],
            _text(stdout),
            _text(stderr),
            tuple(map(records.event_of, data["events"])),
            records.verdict_of(data["verdict"]),
        )


def _kernel_name(kernel: str | Kernel) -> str:
    """What loads the kernel in another process."""
    if isinstance(kernel, str):
        load_kernel(kernel)
        return kernel if not kernel.endswith((".toml", ".json")) else os.path.abspath(kernel)
    with contextlib.suppress(UsageError):
        if load_kernel(kernel.name) == kernel:
            return kernel.name
    raise UsageError(f"{kernel!r} is not a built-in kernel: a program runs under one that has a name or a file")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and the program, which is in the same process group, unless they have ended."""
    if server.poll() is not None:
        return
    os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(GRACE_SECONDS)
        return
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")


def _tail(stream: IO[bytes], most: int = 2000) -> str:
    text = _text(stream).strip()
    return f"\n{text[-most:]}" if text else ""
