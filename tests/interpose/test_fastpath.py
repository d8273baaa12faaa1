# SPDX-License-Identifier: MIT
"""Plain accesses that the client answers itself: the same answers and the same events as by the server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from interpose.builds import SANITIZE, compile_preload
from interpose.conftest import Build
from kvmabi import regid
from kvmabi.device import open_system
from kvmabi.events import Event, EventLog, Kind
from kvmabi.interpose.launch import ExitStatus, run
from kvmabi.interpose.session import Session
from kvmabi.profiles import load_host, load_kernel

Z3 = regid.parse("z3")
SVCR = regid.parse("svcr")
CLOSE = " closed: "
VARIES = re.compile(r"cnt[pv]ct_el0 = \S+|0x7[0-9a-f]{11}|process \d+|[\d.]+ s before")
"""What differs from run to run: counters, addresses of memory, processes and times."""
SAMPLE_STEP = "97"
"""How many bytes lie between the places in the middle of a buffer that are tried."""
Plain = Callable[..., ExitStatus]


@pytest.fixture
def plain(preload: Path, build: Build, log: EventLog) -> Plain:
    """plain(*args, fast=True, program="plain"): run a test program on a host with SVE and SME, with either path."""

    def ran(
        *args: str,
        fast: bool = True,
        program: str = "plain",
        flags: tuple[str, ...] = (),
        library: Path = preload,
        **env: str,
    ) -> ExitStatus:
        system = open_system(load_host("sme-demo"), load_kernel("sme-v12"), log)
        environment = dict(os.environ) | {"KVMABI_FASTPATH": str(int(fast))} | env
        return run([str(build(program, *flags)), *args], system, environment=environment, preload=library)

    return ran


class Registers:
    """A watcher that looks up in each event's registers what was got or set."""

    def __init__(self, log: EventLog) -> None:
        self.seen = 0
        self.different: list[str] = []
        log.watchers.append(self.watch)

    def watch(self, event: Event) -> None:
        if event.kind is Kind.IOCTL and event.register is not None and event.register != SVCR and not event.errno:
            self.seen += 1
            assert event.data is not None
            now = event.registers[event.register]
            if now[: len(event.data)] != event.data:
                self.different.append(f"{event}, registers {now.hex()}")


def asked_server(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the ioctls that the server is asked for from now on."""
    numbers: list[int] = []
    real = Session.ioctl

    def counted(self: Session, identity: bytes, request: int, argument: int) -> object:
        numbers.append(request)
        return real(self, identity, request, argument)

    monkeypatch.setattr(Session, "ioctl", counted)
    return numbers


def accesses(log: EventLog) -> list[tuple[str, int | None, int | None, bytes | None]]:
    return [(event.what, event.vcpu, event.register, event.data) for event in log.events]


def test_few_ioctls_reach_the_server(plain: Plain, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2000 plain accesses the server answers the first; each has its event, in order, with its value."""
    asked = asked_server(monkeypatch)
    assert plain("many", "1000") == (0, 0)
    assert len(asked) < 20
    own = [event for event in log.events if event.register is not None]
    assert [int.from_bytes(event.data or b"", "little") for event in own] == [i // 2 for i in range(2000)]
    assert [event.number for event in log.events] == sorted(event.number for event in log.events)


def test_the_server_alone(plain: Plain, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVMABI_FASTPATH=0: every ioctl reaches the server."""
    asked = asked_server(monkeypatch)
    assert plain("many", "100", fast=False) == (0, 0)
    assert len(asked) > 200


def test_full_ring(plain: Plain, log: EventLog) -> None:
    """More accesses than the ring holds, without another ioctl: no event is lost."""
    log.kept = 0
    count = 0

    def watch(event: Event) -> None:
        nonlocal count
        count += event.register is not None

    log.watchers.append(watch)
    assert plain("many", "15000") == (0, 0)
    assert count == 30_000


def test_registers_of_the_moment(plain: Plain, log: EventLog) -> None:
    """A watcher that looks at an event's registers sees those right after that access, not later ones."""
    registers = Registers(log)
    assert plain("many", "300") == (0, 0)
    assert registers.seen == 600
    assert registers.different == []


def test_order_of_threads(plain: Plain, log: EventLog) -> None:
    """Threads that write to different vCPUs in turns have their events in that order."""
    assert plain("turns") == (0, 0)
    values = [int.from_bytes(event.data or b"", "little") for event in log.events if event.register is not None]
    assert values == list(range(1000))


@pytest.mark.parametrize("how", ["at once", "interrupted"])
def test_mode_changes_meanwhile(plain: Plain, log: EventLog, how: str) -> None:
    """Sets and gets of Z while its length changes, by threads or by a signal handler: nothing is torn."""
    closed: list[bytes] = []

    def watch(event: Event) -> None:
        if event.kind is Kind.CLOSED and event.vcpu == 0:
            closed.append(event.registers[Z3])

    log.watchers.append(watch)
    assert plain(how) == (0, 0)
    (value,) = closed
    assert not any(value[128:])


@pytest.mark.parametrize("how", ["unseen"])
def test_closed_without_the_c_library(plain: Plain, how: str) -> None:
    """A program closes descriptors by system calls of its own and gets their numbers again."""
    assert plain(how) == (0, 0)


def test_killed(plain: Plain, log: EventLog) -> None:
    """What a program did right before SIGKILL is recorded."""
    assert plain("killed") == (137, 0)
    assert len([event for event in log.events if event.register is not None]) == 200


@pytest.mark.slow
def test_same_answers_at_page_boundaries(plain: Plain, log: EventLog, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever answers: the same results, the same bytes in memory and in registers, the same events."""
    found = []
    for fast in (True, False):
        log.events.clear()
        assert plain(SAMPLE_STEP, fast=fast, program="edges") == (0, 0)
        found.append((capfd.readouterr().out, accesses(log)))
    assert found[0][0].count("\n") > 5000
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("conformance", "--backend", "device", "--kernel", "sme-v12"),
        ("fuzz", "--against", "device", "--kernel", "sme-v12", "--host", "sme-demo", "--seed", "5", "--steps", "4000"),
    ],
)
def test_same_log(tmp_path: Path, command: tuple[str, ...]) -> None:
    """The conformance suite and random sequences: the same answers, the same report and the same log."""
    found = []
    for fast in ("1", "0"):
        path = tmp_path / fast
        kvmabi = [sys.executable, "-m", "kvmabi"]
        done = subprocess.run(
            [*kvmabi, "run", "--saves", "none", "--host", "sme-demo", "--log", str(path), "--", *kvmabi, *command],
            env=os.environ | {"KVMABI_FASTPATH": fast},
            capture_output=True,
            text=True,
        )
        log = [VARIES.sub("", line) for line in path.read_text("utf-8").splitlines()]
        closes = [line.partition(" ")[2] for line in log if CLOSE in line]  # noticed when the server has time
        ioctls = [line for line in log if CLOSE not in line]
        found.append([*(VARIES.sub("", text) for text in (done.stdout, done.stderr)), ioctls, sorted(closes)])
    assert len(found[0][2]) > 1000
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["many", "turns", "at once", "interrupted", "unseen"])
def test_sanitized(plain: Plain, how: str, tmp_path: Path) -> None:
    """The fast path is free of memory errors and undefined behaviour."""
    library = compile_preload(tmp_path / "preload.so", *SANITIZE)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not Path(runtime).exists():
        pytest.skip("needs the address sanitizer")
    assert plain(how, library=library, LD_PRELOAD=runtime, ASAN_OPTIONS="detect_leaks=0") == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["many", "turns", "at once", "interrupted"])
def test_thread_sanitized(plain: Plain, build: Build, how: str, tmp_path: Path) -> None:
    """The fast path is free of data races, as far as the program's own accesses go."""
    library = compile_preload(tmp_path / "preload.so", "-fsanitize=thread", "-g")
    try:
        build("plain", "-fsanitize=thread")
    except AssertionError:
        pytest.skip("needs the thread sanitizer")
    assert plain(how, library=library, flags=("-fsanitize=thread",)) == (0, 0)
