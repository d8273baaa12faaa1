# SPDX-License-Identifier: MIT
"""arm64 programs run through qemu-user: the interposer in the program, the server outside."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
from ctools import CC, CROSS_CC
from lacking import needs

from interpose.conftest import Build
from kvmabi.device import SystemFile
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.interpose import libraries, qemuuser
from kvmabi.interpose.clients import OUT_OF_REACH
from kvmabi.interpose.launch import ExitStatus, run
from kvmabi.interpose.program import CannotRun, Kind, Way

pytestmark = [
    needs(*CROSS_CC, what="an arm64 cross compiler"),
    needs("qemu-aarch64", what="qemu-user"),
]
CALLS = ("execv", "execve", "execvp", "execvpe", "posix_spawn", "posix_spawnp", "vfork")
RENAMING: dict[str, tuple[str, ...]] = {"execl": ("a",), "execlp": (), "execle": ()}


class Runs:
    """Runs of the program ``starts``, built for arm64 and for this machine, with what it and its children print."""

    def __init__(
        self, build: Build, preload: Path, arm64: Path, system: SystemFile, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.arm64 = str(build("starts", compiler=CROSS_CC))
        self.fixed = str(build("starts", "-no-pie", compiler=CROSS_CC))
        self.native = str(build("starts", compiler=tuple(CC)))
        self._system, self._capfd = system, capfd
        self._libraries = {"preload": preload, "arm64": arm64}

    def lines(self, *argv: str, status: int = 0, **options: object) -> list[str]:
        """What is printed by a run that ends with this status."""
        assert self.run(*argv, **options) == (status, 0)
        return self._capfd.readouterr().out.splitlines()

    def run(self, *argv: str, **options: object) -> ExitStatus:
        return run(["timeout", "60", *argv], self._system, **self._libraries | options)  # type: ignore[arg-type]

    def run_directly(self, *argv: str, **options: object) -> ExitStatus:
        return run(argv, self._system, **self._libraries | options)  # type: ignore[arg-type]


@pytest.fixture
def runs(build: Build, preload: Path, arm64: Path, system: SystemFile, capfd: pytest.CaptureFixture[str]) -> Runs:
    return Runs(build, preload, arm64, system, capfd)


def line(machine: str, program: str, *words: str, name: str = "") -> str:
    """What ``starts`` prints: its machine, argv[0], its own file, and the API version of /dev/kvm."""
    return " ".join([machine, name or program, Path(program).name, "same", "12", *words])


@pytest.mark.parametrize("kind", ["arm64", "fixed"])
def test_program(runs: Runs, kind: str, capfd: pytest.CaptureFixture[str], log: EventLog) -> None:
    """An arm64 program, position-independent or not, sees its own name and file, and the device."""
    program = getattr(runs, kind)
    assert runs.run_directly(program) == (0, 0)
    assert capfd.readouterr().out.splitlines() == [line("arm64", program)]
    assert [event.what for event in log.events] == ["KVM_GET_API_VERSION"]


def test_found_in_path(runs: Runs, capfd: pytest.CaptureFixture[str]) -> None:
    """A program that PATH finds has the name that it was called by."""
    folder, name = os.path.split(runs.arm64)
    environment = dict(os.environ) | {"PATH": f"{folder}:{os.environ['PATH']}"}
    assert runs.run_directly(name, "", "x", environment=environment) == (0, 0)
    assert capfd.readouterr().out.splitlines() == [line("arm64", runs.arm64, "", "x", name=name)]


@pytest.mark.slow
@pytest.mark.parametrize("how", CALLS)
def test_starts_programs(runs: Runs, how: str) -> None:
    """Programs of either machine start programs of either machine, each with the device."""
    assert runs.lines(runs.native, how, runs.arm64, how, runs.native, how, runs.fixed, "", "x") == [
        line("native", runs.native),
        line("arm64", runs.arm64),
        line("native", runs.native),
        line("arm64", runs.fixed, "", "x"),
    ]


@pytest.mark.parametrize("how", RENAMING)
def test_variadic_calls(runs: Runs, how: str) -> None:
    """All arguments arrive, and the name that the caller chose."""
    status = 93 if how == "execlp" else 0  # "a" and "b" are HOW and PROGRAM of the program started
    found = runs.lines(runs.arm64, how, runs.fixed, status=status)
    assert found[:2] == [line("arm64", runs.arm64), line("arm64", runs.fixed, *RENAMING[how], name="renamed")]


def test_own_file(runs: Runs) -> None:
    """exec of /proc/self/exe starts the program anew, not its loader and not qemu-user."""
    assert runs.lines(runs.arm64, "self", "again") == [
        line("arm64", runs.arm64),
        line("arm64", runs.arm64, name="again"),
    ]


@pytest.mark.parametrize("kind", ["arm64", "native"])
def test_shells(runs: Runs, kind: str) -> None:
    """system() runs this machine's shell, which starts arm64 programs."""
    program = getattr(runs, kind)
    assert runs.lines(program, "system", f"{runs.arm64}; exec {runs.native}") == [
        line(kind, program),
        line("arm64", runs.arm64),
        line("native", runs.native),
    ]


def test_scripts(runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A script with an arm64 interpreter runs through qemu-user, with its first line's option; a shell's as ever."""
    script, shells = tmp_path / "script", tmp_path / "shells"
    script.write_text(f"#! {runs.arm64}  an option \n")
    shells.write_text(f'#!/bin/sh\nexec "{runs.arm64}" "$@"\n')
    for file in (script, shells):
        file.chmod(0o755)
    of_script = [line("arm64", runs.arm64), "errno 2"]
    assert runs.run_directly(str(script), "x") == (93, 0)
    assert capfd.readouterr().out.splitlines()[0] == of_script[0]
    assert runs.lines(runs.native, "execv", str(script), "x", status=93)[1] == of_script[0]
    assert runs.lines(str(shells), "execv", runs.native) == [line("arm64", runs.arm64), line("native", runs.native)]


def test_without_an_environment(runs: Runs) -> None:
    """A child with an empty environment runs, but has no emulated device."""
    assert runs.lines(runs.arm64, "empty", runs.fixed)[1].startswith(f"arm64 {runs.fixed}")


def test_what_exec_refuses(runs: Runs, tmp_path: Path) -> None:
    """A program without the permission to execute it is refused, by kvmabi run with 126 and in a program by EACCES."""
    program = tmp_path / "program"
    shutil.copy(runs.arm64, program)
    program.chmod(stat.S_IRUSR)
    with pytest.raises(CannotRun) as refused:
        runs.run_directly(str(program))
    assert refused.value.code == 126
    assert runs.lines(runs.arm64, "execv", str(program), status=93)[1] == f"errno {errno.EACCES}"


def test_libraries_of_the_program(runs: Runs) -> None:
    """LD_LIBRARY_PATH comes before the folders that the loader is told of."""
    qemu = qemuuser.QemuUser("qemu", "loader", "theirs")
    way = Way(Kind.EMULATED, runs.arm64)
    command = qemu.command("./p", way, ["p", "x"], {"LD_LIBRARY_PATH": "mine"})
    assert command == ["qemu", "loader", "--library-path", "mine:theirs", "--argv0", "p", "./p", "x"]
    assert qemuuser.QemuUser("qemu").command("./p", way, ["p"], {}) == ["qemu", "-0", "p", "./p"]


def test_sysroot(runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--sysroot names the root of the libraries; the program's own paths are not redirected."""
    root = tmp_path / "root"
    shutil.copytree(qemuuser.CROSS_LIBRARIES / "lib", root / "usr" / "lib", symlinks=True)
    (root / "dev").mkdir()
    assert runs.run_directly(runs.arm64, sysroot=root) == (0, 0)
    assert capfd.readouterr().out.splitlines() == [line("arm64", runs.arm64)]
    with pytest.raises(UsageError, match=r"^--sysroot .*: there is no ld-linux-aarch64.so.1"):
        runs.run_directly(runs.arm64, sysroot=tmp_path)


@pytest.mark.parametrize(
    ("missing", "package"), [("qemu", "qemu-user"), ("loader", "libc6-arm64-cross"), ("compiler", "gcc-aarch64")]
)
def test_missing_tools(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, package: str) -> None:
    """What a machine lacks is one line that names Debian's package; programs of the machine run all the same."""
    if missing == "qemu":
        monkeypatch.setattr(qemuuser, "NAMES", ("no-such-qemu",))
    elif missing == "loader":
        monkeypatch.setattr(qemuuser, "CROSS_LIBRARIES", tmp_path)
        monkeypatch.setattr(qemuuser, "USUAL_LOADER", tmp_path / "absent")
    else:
        monkeypatch.setattr(libraries, "ARM64", tmp_path / "absent")
        monkeypatch.setattr(libraries, "COMPILER", "no-such-compiler")
    with pytest.raises(UsageError, match=package) as refused:
        runs.run_directly(runs.arm64, arm64=None)
    assert "\n" not in str(refused.value)
    assert runs.lines(runs.native, arm64=None) == [line("native", runs.native)]


@pytest.mark.slow
@pytest.mark.parametrize("has_cache", [True, False])
def test_built_on_first_use(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], has_cache: bool
) -> None:
    """Without an interposer in the package it is compiled into the user's cache, once; it works without one."""
    cache = tmp_path / "cache"
    if not has_cache:
        cache.write_text("not a folder")
    monkeypatch.setattr(libraries, "ARM64", tmp_path / "absent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    built = set()
    for _ in range(2):
        assert runs.run_directly(runs.arm64, arm64=None) == (0, 0)
        assert capfd.readouterr().out.splitlines() == [line("arm64", runs.arm64)]
        built |= {(file.name, file.stat().st_mtime_ns) for file in cache.rglob("preload-*.so")}
    assert len(built) == has_cache
    assert [file.name for file in cache.rglob(".*")] == []


def test_a_compiler_without_a_c_library(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that fails is one line with its first error and the packages."""
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'preload.c:1: fatal error: dlfcn.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(libraries, "ARM64", tmp_path / "absent")
    monkeypatch.setattr(libraries, "COMPILER", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"install gcc-aarch64.*libc6-dev-arm64-cross.*dlfcn.h"):
        runs.run_directly(runs.arm64, arm64=None)


def test_guest_base(runs: Runs, capfd: pytest.CaptureFixture[str]) -> None:
    """A program whose addresses are not its process's is refused in one line, and the run fails."""
    status = runs.run_directly(runs.arm64, environment=dict(os.environ) | {"QEMU_GUEST_BASE": "0x100000000000"})
    assert status.code == 125
    assert capfd.readouterr().err == f"kvmabi: {OUT_OF_REACH}\n"


def test_qemu_by_hand(runs: Runs, arm64: Path) -> None:
    """A user can also call qemu-user; -L is its option for libraries."""
    root = str(qemuuser.CROSS_LIBRARIES)
    assert runs.lines("qemu-aarch64", "-L", root, runs.arm64) == [line("arm64", runs.arm64)]


def test_static(runs: Runs, build: Build) -> None:
    """A static arm64 program cannot be reached; the line that says so names the ways out."""
    program = str(build("exits", "-static", compiler=CROSS_CC))
    with pytest.raises(UsageError, match=r"linked statically: qemu-user .* link it dynamically") as refused:
        runs.run_directly(program, "0")
    assert "\n" not in str(refused.value)
    assert runs.run("sh", "-c", f"{program} 3") == (3, 0)  # a child runs, unreached
