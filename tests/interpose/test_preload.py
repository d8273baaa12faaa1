# SPDX-License-Identifier: MIT
"""Unmodified C programs see what the kernel would show them. Each program checks its facts itself."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from processes import StartProcess

from interpose.builds import PROGRAM_FLAGS, PROGRAMS, SANITIZE, compile_file, compile_preload
from interpose.conftest import Build, Start
from interpose.rawclient import serving
from kvmabi.device import SystemFile, open_system
from kvmabi.events import EventLog
from kvmabi.interpose.launch import run
from kvmabi.profiles import load_host, load_kernel

USUAL_FDS = 1024
ENOUGH_FDS = 4096
PATIENCE_SECONDS = 60


def test_hello(start: Start, log: EventLog, capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    """A small VMM works, its errors are the kernel's, and its calls are in the event log."""
    without = ("ioctls of another type",) if "static" in request.node.name else ()  # the filter lets them through
    assert start("hello", *without) == (0, 0)
    assert capfd.readouterr().out == "hello\n"
    assert [event.what for event in log.events][:3] == ["KVM_GET_API_VERSION", "KVM_CREATE_VM", "KVM_CREATE_VCPU"]


@pytest.mark.slow
def test_threads(start: Start) -> None:
    """Threads call at once, one waits in KVM_RUN, a signal handler calls as well: none blocks another."""
    assert start("threads") == (0, 0)


@pytest.mark.slow
def test_run(start: Start) -> None:
    """KVM_RUN ends with EINTR by immediate_exit and signals, with SA_RESTART and KVM_SET_SIGNAL_MASK, too."""
    assert start("run") == (0, 0)


def test_eventfds(preload: Path, build: Build, log: EventLog) -> None:
    """Irqfds and ioeventfds go by the program's own descriptors; statistics and a guest_memfd are files of its own."""
    system = open_system(load_host("neoverse-v1"), load_kernel("linux-7.3"), log)
    assert run([str(build("eventfds"))], system, preload=preload) == (0, 0)


def test_devices(preload: Path, build: Build, log: EventLog) -> None:
    """A VMM creates a vGIC, whose fd is in the ioctl's struct, and a PMU, and runs."""
    system = open_system(load_host("qemu-max"), load_kernel("linux-7.3"), log)
    assert run([str(build("devices"))], system, preload=preload) == (0, 0)


@pytest.mark.slow
def test_fork(start: Start, request: pytest.FixtureRequest) -> None:
    """Children have a VM of their own and get EIO on the parent's; children in the same memory do not."""
    without = ("shared memory",) if "arm64" in request.node.name else ()  # qemu-user has no such children
    assert start("fork", *without) == (0, 0)


@pytest.mark.slow
def test_fds(start: Start) -> None:
    """dup, dup2, dup3, fcntl, close, fclose, closefrom: the file behind the fd counts, not its number."""
    assert start("fds") == (0, 0)


def test_passing(start: Start) -> None:
    """A VM's fd passed over a socket is refused with EIO in the other process, and comes back whole."""
    assert start("passing") == (0, 0)


def test_paths(start: Start) -> None:
    """/dev/kvm exists for open, stat and access under all its names."""
    assert start("paths") == (0, 0)


@pytest.mark.slow
def test_many_vcpus(start: Start) -> None:
    """512 vCPUs fit under the usual limit of 1024 fds, here and there; at the limit there is EMFILE."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < ENOUGH_FDS:
        pytest.skip(f"this process may not have more than {limits[1]} fds")
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_FDS, limits[1]))
    try:
        assert start("many") == (0, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.slow
def test_latency(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    record_property: pytest.RecordProperty,
) -> None:
    """The server reads a register within a millisecond (15 µs where nothing else runs); other ioctls hardly notice."""
    monkeypatch.setenv("KVMABI_FASTPATH", "0")
    assert start("latency") == (0, 0)
    one_reg, foreign = map(float, capfd.readouterr().out.split())
    record_property("get_one_reg_us", one_reg)
    assert one_reg < 1000
    assert foreign < one_reg / 4


def test_without_server(preload: Path, build: Build, tmp_path: Path) -> None:
    """Where the server is gone /dev/kvm cannot be opened; without KVMABI_SOCKET the library keeps out."""
    environment = {"LD_PRELOAD": str(preload)}
    gone = subprocess.run(
        [build("hello")], env=environment | {"KVMABI_SOCKET": str(tmp_path / "none")}, capture_output=True, text=True
    )
    assert "fd >= 0 (errno 19)" in gone.stderr  # ENODEV
    assert subprocess.run(["cat", "/dev/null"], env=environment, check=False).returncode == 0


def test_server_that_comes_again(
    preload: Path, build: Build, system: SystemFile, tmp_path: Path, start_process: StartProcess
) -> None:
    """A program whose server is gone drops the connection, and connects to the next one at the same place."""
    place = tmp_path / "socket"
    environment = {"LD_PRELOAD": str(preload), "KVMABI_SOCKET": str(place)}
    with serving(system, tmp_path):
        program = start_process(
            build("again"), env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "served\n"
    place.unlink()
    print(file=program.stdin, flush=True)
    assert program.stdout.readline() == "not served\n"
    with serving(system, tmp_path):
        print(file=program.stdin, flush=True)
        assert program.stdout.readline() == "served again\n"
        print(file=program.stdin, flush=True)
        assert program.wait(PATIENCE_SECONDS) == 0


def test_kernel_that_answers_as_qemu_user(preload: Path, system: SystemFile, tmp_path: Path) -> None:
    """An ioctl number that is not KVM's has KVM's answer on a KVM fd, also where the next library says ENOSYS."""
    library = compile_file(PROGRAMS / "enosys.c", tmp_path / "enosys.so", "-shared", "-fPIC")
    linked = ("-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{tmp_path}")
    program = compile_file(PROGRAMS / "hello.c", tmp_path / "hello", *PROGRAM_FLAGS, *linked)
    assert run([str(program)], system, preload=preload) == (0, 0)


@pytest.mark.parametrize("how", ["prctl", "syscall"])
@pytest.mark.parametrize("transport", ["preload", "seccomp"])
def test_filter_of_the_program(preload: Path, build: Build, system: SystemFile, how: str, transport: str) -> None:
    """A VMM that installs a seccomp filter for what a real /dev/kvm needs is served; what it forbids kills it."""
    program = str(build("filtered"))
    assert run([program, how], system, preload=preload, transport=transport) == (0, 0)
    assert run([program, how, "forbidden"], system, preload=preload, transport=transport) == (128 + signal.SIGSYS, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hello", "threads", "run", "fork", "fds", "passing", "paths"])
def test_sanitized(name: str, build: Build, system: SystemFile, tmp_path: Path) -> None:
    """The interposer itself is free of memory errors and undefined behaviour."""
    preload = compile_preload(tmp_path / "preload.so", *SANITIZE)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not Path(runtime).exists():
        pytest.skip("needs the address sanitizer")
    environment = dict(os.environ) | {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    assert run([str(build(name))], system, environment=environment, preload=preload) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hello", "fds"])
def test_sanitized_program(name: str, build: Build, system: SystemFile, preload: Path) -> None:
    """A VMM that is built with the address sanitizer accepts the interposer before the sanitizer's library."""
    try:
        program = build(name, "-fsanitize=address")
    except AssertionError:
        pytest.skip("needs the address sanitizer")
    assert run([str(program)], system, preload=preload) == (0, 0)
