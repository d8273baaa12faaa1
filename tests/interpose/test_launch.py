# SPDX-License-Identifier: MIT
"""A run starts the program as env(1) does, ends as it ends, and leaves nothing behind."""

from __future__ import annotations

import os
import platform
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from processes import StartProcess

from interpose.conftest import Build, Start
from kvmabi.device import SystemFile
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.interpose import launch
from kvmabi.interpose.descendants import Descendants
from kvmabi.interpose.launch import ExitStatus, run
from kvmabi.interpose.program import CannotRun

RUNNER = Path(__file__).with_name("runner.py")
PATIENCE_SECONDS = 60
PPOLL = {"x86_64": "271 ", "aarch64": "73 "}
"""How /proc/PID/syscall begins while a thread waits in KVM_RUN."""


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which socket folders are made."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def in_own_process(preload: Path, start_process: StartProcess) -> StartProcess:
    """in_own_process(program, *args): run a program from another process, with its output in a pipe."""
    return partial(start_process, sys.executable, RUNNER, preload, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("how", "status"), [("0", 0), ("3", 3), ("255", 255), ("-9", 137), ("-15", 143), ("-6", 134)])
def test_exit_status(build: Build, preload: Path, system: SystemFile, how: str, status: int) -> None:
    """The program's own exit status, or 128 + S."""
    assert run([str(build("exits")), how], system, preload=preload) == ExitStatus(status, 0)


def test_own_failure() -> None:
    """A failure of kvmabi takes precedence over the program's status."""
    assert [ExitStatus(0, 0).code, ExitStatus(3, 0).code, ExitStatus(0, 1).code, ExitStatus(3, 2).code] == [
        0,
        3,
        125,
        125,
    ]


def test_cannot_run(preload: Path, system: SystemFile, tmp_path: Path, runtime: Path) -> None:
    """127 for a missing program, 126 for one that cannot be executed, as env does; nothing is left."""
    (tmp_path / "data").write_text("x")
    (tmp_path / "lost").write_text("#!/nowhere/interpreter\n")
    (tmp_path / "lost").chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin"}
    for name, code in (
        ("absent", 127),
        ("./absent", 127),
        (f"{tmp_path}/lost", 127),
        (f"{tmp_path}/data", 126),
        ("/", 126),
    ):
        with pytest.raises(CannotRun, match=f"^{name}: ") as refused:
            run([name], system, environment=environment, preload=preload)
        assert refused.value.code == code
        assert subprocess.run(["env", name], env=environment, capture_output=True, check=False).returncode == code
    assert list(runtime.iterdir()) == []


def test_misuse(preload: Path, system: SystemFile, build: Build, tmp_path: Path) -> None:
    """No program, a static program to preload into and an interposer that was not built are usage errors."""
    with pytest.raises(UsageError, match="no program"):
        run([], system, preload=preload)
    with pytest.raises(UsageError, match="linked statically"):
        run([str(build("exits", "-static"))], system, preload=preload, transport="preload")
    with pytest.raises(UsageError, match="not built"):
        run(["true"], system, preload=tmp_path / "preload.so")


def test_scripts(
    preload: Path, system: SystemFile, build: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Scripts, with and without a first line that names the shell, pass the interposer on."""
    for first_line in ("#!/bin/sh\n", ""):
        script = tmp_path / "script"
        script.write_text(f'{first_line}test -r /dev/kvm && test -c /dev/kvm && "$1" && exit $2\n')
        script.chmod(0o755)
        environment = dict(os.environ) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        assert run(["script", str(build("hello")), "5"], system, environment=environment, preload=preload) == (5, 0)
        assert capfd.readouterr().out == "hello\n"


def test_environment(preload: Path, system: SystemFile, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The program's own preloads stay, and come first; the rest of the environment is as given."""
    other = tmp_path / "other.so"
    shutil.copy(preload, other)
    environment = {"PATH": os.environ["PATH"], "LD_PRELOAD": str(other), "A": "b", "ASAN_OPTIONS": "detect_leaks=0"}
    assert run(["env"], system, environment=environment, preload=preload) == (0, 0)
    lines = dict(line.split("=", 1) for line in capfd.readouterr().out.splitlines())
    before, _colon, added = lines["LD_PRELOAD"].partition(":")
    assert before == str(other)
    assert os.path.samefile(added.replace("$PLATFORM", platform.machine()), preload)
    assert lines["A"] == "b"
    assert lines["ASAN_OPTIONS"] == "detect_leaks=0:verify_asan_link_order=0"


def test_two_interposers(preload: Path, system: SystemFile, build: Build, tmp_path: Path) -> None:
    """Even the interposer preloaded twice works once."""
    other = tmp_path / "other.so"
    shutil.copy(preload, other)
    environment = dict(os.environ) | {"LD_PRELOAD": str(other)}
    assert run([str(build("hello"))], system, environment=environment, preload=preload) == (0, 0)


def test_odd_places(preload: Path, system: SystemFile, build: Build, tmp_path: Path, log: EventLog) -> None:
    """The interposer may be in a folder whose name LD_PRELOAD cannot hold."""
    for name in ("with space", "with:colon", "with$LIB"):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(preload, folder)
        before = log.count
        assert run([str(build("hello"))], system, preload=folder / preload.name) == (0, 0)
        assert log.count > before


def test_long_runtime_folder(
    preload: Path, system: SystemFile, build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the path of the socket would be too long for the kernel, another folder is found."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    assert run([str(build("hello"))], system, preload=preload) == (0, 0)
    assert list(folder.iterdir()) == []


def test_private_folder(preload: Path, system: SystemFile, runtime: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The socket is in a folder of mode 0700, which is gone afterwards."""
    script = 'dirname "$KVMABI_SOCKET"; stat -c %a "$(dirname "$KVMABI_SOCKET")"; test -S "$KVMABI_SOCKET"'
    assert run(["sh", "-c", script], system, preload=preload) == (0, 0)
    folder, mode = capfd.readouterr().out.split()
    assert (Path(folder).parent, mode) == (runtime, "700")
    assert list(runtime.iterdir()) == []


def test_process_is_as_before(preload: Path, system: SystemFile, build: Build, start_process: StartProcess) -> None:
    """After a run this process has the fds, limits, signal handlers and children that it had."""

    def look() -> tuple[object, ...]:
        return (
            sorted(os.listdir("/proc/self/fd")),
            launch.resource.getrlimit(launch.resource.RLIMIT_NOFILE),
            [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)],
        )

    sleeper = start_process("sleep", "600")
    before = look()
    assert run([str(build("hello"))], system, preload=preload) == (0, 0)
    assert look() == before
    assert sleeper.poll() is None


def test_limit_of_the_program(preload: Path, system: SystemFile, capfd: pytest.CaptureFixture[str]) -> None:
    """The program has the limit of fds that it would have otherwise."""
    soft, hard = launch.resource.getrlimit(launch.resource.RLIMIT_NOFILE)
    launch.resource.setrlimit(launch.resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        run(["sh", "-c", "ulimit -n"], system, preload=preload)
    finally:
        launch.resource.setrlimit(launch.resource.RLIMIT_NOFILE, (soft, hard))
    assert capfd.readouterr().out == f"{soft - 1}\n"


@pytest.mark.slow
def test_daemon(start: Start, tmp_path: Path, log: EventLog) -> None:
    """A daemon that uses KVM after its parents ended is served; the status is the program's own."""
    report = tmp_path / "report"
    assert start("daemon", str(report)) == (7, 0)
    assert report.read_text() == "done"
    assert [event.what for event in log.events].count("KVM_CREATE_VM") == 2


@pytest.mark.slow
def test_unrelated_daemon(preload: Path, system: SystemFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process left behind that does not use KVM is waited for a moment, and goes on when kvmabi ends."""
    began = time.monotonic()
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.3)
    with Descendants() as descendants:
        script = "sleep 600 >/dev/null 2>&1 & exit 2"
        assert run(["sh", "-c", script], system, preload=preload) == (2, 0)
        assert time.monotonic() - began >= 0.3
        assert descendants.alive()


@pytest.mark.slow
def test_child_that_closed_all(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child alone holds no connection: kvmabi does not wait for one that closed KVM's fds."""
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.3)
    with Descendants() as descendants:
        assert start("forks") == (0, 0)
        assert descendants.alive()


def test_failure_of_the_device(
    preload: Path, build: Build, system: SystemFile, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bug in the device is reported in one line, and the run fails."""

    def break_down(*_arguments: object) -> int:
        raise KeyError("svcr")

    monkeypatch.setattr(system, "ioctl", break_down)
    status = run([str(build("hello"))], system, preload=preload)
    assert (status.program, status.failures, status.code) == (1, 1, 125)
    assert "kvmabi: internal error: KeyError: 'svcr' (" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals(in_own_process: StartProcess, runtime: Path, number: signal.Signals) -> None:
    """A signal to kvmabi is passed on to the program, whose exit status is reported; the socket is removed."""
    script = f"trap 'exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    runner = in_own_process("sh", "-c", script)
    assert runner.stdout is not None
    assert runner.stdout.readline() == "ready\n"
    runner.send_signal(number)
    runner.communicate(timeout=PATIENCE_SECONDS)
    assert runner.returncode == 9
    assert list(runtime.iterdir()) == []


@pytest.mark.slow
def test_interrupt_from_the_terminal(preload: Path, build: Build, start_process: StartProcess) -> None:
    """Control-C reaches the program once: from the terminal, not from kvmabi a second time."""
    master, slave = os.openpty()
    command = 'exec <"$1"; shift; exec "$@"'  # a session without a terminal gets the one that it opens
    program = [sys.executable, RUNNER, preload, build("interrupted")]
    words = ["sh", "-c", command, "sh", os.ttyname(slave), *program]
    runner = start_process(*words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert runner.stdout is not None
    assert runner.stdout.readline() == "ready\n"
    os.write(master, b"\x03")
    runner.communicate(timeout=PATIENCE_SECONDS)
    assert runner.returncode == 1
    os.close(master)
    os.close(slave)


@pytest.mark.slow
def test_signal_for_what_remains(in_own_process: StartProcess, runtime: Path, build: Build) -> None:
    """When the program has ended, kvmabi serves what it left behind until a signal comes."""
    runner = in_own_process("sh", "-c", f'"{build("waits")}" & echo $$; exit 4')
    assert runner.stdout is not None
    lines = iter(runner.stdout.readline, "")
    program = Path("/proc", next(line.strip() for line in lines if line.strip().isdigit()))
    while program.exists():
        time.sleep(0.005)
    ended = time.monotonic()
    next(line for line in lines if line.startswith("served at ") and float(line.split()[-1]) > ended)
    assert runner.poll() is None
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(PATIENCE_SECONDS) == 4
    assert list(runtime.iterdir()) == []


def test_ignored_signals_stay_ignored(preload: Path, build: Build, start_process: StartProcess) -> None:
    """Signals that nohup ignores stay ignored, for the program and for kvmabi, which keeps serving."""
    script = f'kill -HUP $$; kill -HUP $PPID; "{build("hello")}" && exit 6'
    runner = start_process(
        "nohup", sys.executable, RUNNER, preload, "sh", "-c", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    runner.communicate(timeout=PATIENCE_SECONDS)
    assert runner.returncode == 6


def test_socket_mode(preload: Path, system: SystemFile, runtime: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A generous umask does not open the folder."""
    before = os.umask(0)
    try:
        run(["sh", "-c", 'stat -c %a "$(dirname "$KVMABI_SOCKET")"'], system, preload=preload)
    finally:
        os.umask(before)
    assert capfd.readouterr().out == "700\n"
    assert stat.S_IMODE(runtime.stat().st_mode) & 0o700 == 0o700


@pytest.mark.usefixtures("runtime")
def test_a_wait_ends_with_the_server(in_own_process: StartProcess, build: Build) -> None:
    """A program in KVM_RUN whose server is killed does not wait for ever: its next ioctl fails with EIO."""
    server = in_own_process(build("orphan"))
    assert server.stdout is not None
    pid = int(server.stdout.readline())
    program = os.pidfd_open(pid)
    while not Path(f"/proc/{pid}/syscall").read_text().startswith(PPOLL[platform.machine()]):
        time.sleep(0.001)
    server.kill()
    with select.epoll() as poll:
        poll.register(program, select.EPOLLIN)
        ended = poll.poll(PATIENCE_SECONDS)
    os.close(program)
    assert ended
