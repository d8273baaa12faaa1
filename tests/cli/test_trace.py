# SPDX-License-Identifier: MIT
"""``kvmabi trace`` and ``--record``: real programs, their output, bad input, full disks and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ctools import INCLUDE, ROOT, compile_c

from cli.conftest import Kvmabi, one_line
from cli.schemas import validate

COMMAND = [sys.executable, "-m", "kvmabi"]
WAITS = """
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    int vm = ioctl(open("/dev/kvm", O_RDWR), KVM_CREATE_VM, 0);
    (void)argv;
    puts("program");
    fflush(stdout);
    if (argc > 1)
        pause();
    raise(SIGTERM);
    return vm;
}
"""


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that makes a VM, writes a line, waits if it has an argument, and dies of a signal."""
    path = tmp_path_factory.mktemp("trace") / "waits"
    compile_c(WAITS, [f"-I{INCLUDE}", "-w", "-o", str(path)])
    return path


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example that restores in list order."""
    path = tmp_path_factory.mktemp("trace") / "naive"
    source = (ROOT / "vmm_examples/naive_list_order.c").read_text("utf-8")
    compile_c(source, [f"-I{INCLUDE}", f"-I{ROOT / 'vmm_examples'}", "-w", "-o", str(path)])
    return path


def ran(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """How a command ended."""
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def test_output_and_exit_status_are_the_programs(waits: Path) -> None:
    """The program's line is alone on stdout, the trace on stderr, and its signal is the status."""
    done = ran("trace", "--", waits)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "program\n")
    assert done.stderr == "kvm CREATE_VM 0 -> vm1\nvm1 +++ released +++\n"


def test_every_register_access_is_there_in_order(naive: Path, tmp_path: Path) -> None:
    """The numbers of events have no gap with or without the fast path, which leaves the same trace."""
    traces = []
    for fast in "10":
        path = tmp_path / fast
        env = os.environ | {"KVMABI_FASTPATH": fast}
        assert ran("trace", "-e", "!list", "-o", path, "--full", "--", naive, env=env).returncode == 0
        traces.append([line for line in path.read_text("utf-8").splitlines() if "cnt" not in line])
    assert traces[0] == traces[1]
    done = ran("trace", "--format", "json", "--", naive)
    numbers = [event["number"] for event in map(json.loads, done.stderr.splitlines()) if event["kind"] == "ioctl"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 800


def test_json_is_as_the_schema_says(naive: Path) -> None:
    """Each line is one value."""
    lines = ran("trace", "--format", "json", "-e", "life,list,failed,cap", "--", naive).stderr.splitlines()
    assert len(lines) > 50
    for line in lines:
        validate("trace", line)


@pytest.mark.parametrize("times", ["relative", "delta", "clock"])
def test_times(waits: Path, times: str) -> None:
    """A number of seconds or a time of day before each line."""
    first = ran("trace", "--times", times, "--", waits).stderr.splitlines()[0]
    number, rest = first.strip().split(" ", 1)
    assert rest == "kvm CREATE_VM 0 -> vm1"
    assert number.count(":") == (2 if times == "clock" else 0)


def test_a_program_without_kvm(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """One line; the record is a head that closes everything."""
    path = tmp_path / "a.trace"
    done = ran("trace", "--record", path, "--", sys.executable, "-c", "raise SystemExit(3)")
    assert (done.returncode, done.stderr) == (3, f"kvmabi: {sys.executable} made no ioctl on /dev/kvm\n")
    assert kvmabi("replay", str(path)).out == "1 steps, 0 mismatches\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("-e nothing", "no ioctl has this name"),
        ("--vcpu x", "is not a vCPU"),
        ("-o /nowhere/x", "cannot be written"),
        ("--record /nowhere/x", "cannot be written"),
        ("--record /", "is not a regular file"),
        ("--record /dev/null", "is not a regular file"),
        ("--host nothing", "nothing"),
        ("--times never", "--times"),
    ],
)
def test_misuse_before_the_program_starts(kvmabi: Kvmabi, tmp_path: Path, words: str, text: str) -> None:
    """One line, status 125, and nothing was run."""
    sign = tmp_path / "ran"
    one_line(kvmabi("trace", *words.split(), "--", "touch", str(sign)), 125, text)
    assert not sign.exists()


@pytest.mark.parametrize("command", ["run", "trace"])
@pytest.mark.parametrize("option", ["--record", "--sysroot"])
def test_an_empty_name(kvmabi: Kvmabi, command: str, option: str) -> None:
    """It is not a file's."""
    one_line(kvmabi(command, option, "", "--", "true"), 125, f"{option} takes a name, which is empty")
    one_line(kvmabi(command), 125, f"no program to run (see kvmabi {command} --help)")


def test_a_program_that_is_not_found(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """127; a record that was there stays."""
    path = tmp_path / "a.trace"
    path.write_text("before")
    assert kvmabi("trace", "--record", str(path), "--", str(tmp_path / "nothing")).status == 127
    one_line(kvmabi("run", "--record", str(path), "--transport", "preload", "--", "/nowhere/x"), 127, "/nowhere/x")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.trace", "before")]


def test_a_record_survives_the_programs_death(waits: Path, tmp_path: Path, kvmabi: Kvmabi) -> None:
    """It gets its name however the program ends."""
    path = tmp_path / "a.trace"
    assert ran("run", "--saves", "none", "--record", path, "--", waits).returncode == 128 + signal.SIGTERM
    assert kvmabi("replay", str(path)).out == "3 steps, 0 mismatches\n"


def test_a_record_survives_kvmabis_death(waits: Path, tmp_path: Path, kvmabi: Kvmabi) -> None:
    """What happened until then is in FILE.part, complete up to a whole line."""
    path, part = tmp_path / "a.trace", tmp_path / "a.trace.part"
    command = [*COMMAND, "trace", "--record", str(path), "--", str(waits), "wait"]
    env = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}  # the socket's folder is left behind
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "program\n"
        (child,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        running.kill()
        running.wait()
        os.kill(int(child), signal.SIGKILL)
    assert not path.exists()
    assert part.read_bytes().endswith(b"C 0\tOK\n")
    assert kvmabi("replay", str(part)).out == "2 steps, 0 mismatches\n"


def test_a_packed_record(waits: Path, tmp_path: Path, kvmabi: Kvmabi) -> None:
    """A name that ends with .xz is packed, and conformance reads it."""
    path = tmp_path / "a.trace.xz"
    ran("trace", "--record", path, "--", waits)
    assert path.read_bytes()[:4] == b"\xfd7zX"
    assert "1 passed" in kvmabi("conformance", "--cases", str(path)).out
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_record_that_differs_fails_as_a_case(waits: Path, tmp_path: Path, kvmabi: Kvmabi) -> None:
    """The answer of the record is what the case expects."""
    path = tmp_path / "a.trace"
    path.write_text("# host sme-demo\n# seq mine\nC 0\tOK\nV 0\tEINVAL\n")
    ended = kvmabi("conformance", "--cases", str(path))
    assert ended.status == 1
    assert "mine" in ended.out
    path.write_text("# host sme-demo\nnothing\tOK\n")
    one_line(kvmabi("conformance", "--cases", str(path)), 2, f"{path}:2: ")


def test_a_full_disk(waits: Path, tmp_path: Path) -> None:
    """The program goes on; one line says that the record is not complete, and the status is kvmabi's own failure."""
    path = tmp_path / "a.trace"
    size = len(f"# host sme-demo\n# kernel sme-v12\n# recorded by kvmabi 0.1.0: {waits}\n# seq record\nZ\tOK\n") + 3
    script = f'ulimit -f unlimited; exec prlimit --fsize={size} "$@"'
    done = subprocess.run(
        [
            "bash",
            "-c",
            script,
            "bash",
            *COMMAND,
            "run",
            "--saves",
            "none",
            "--record",
            path,
            "--report",
            "none",
            "--",
            waits,
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (125, "program\n")
    assert done.stderr.count("\n") == 1
    assert "the record ends before the run did" in done.stderr
    assert path.read_text().endswith("# seq record\nZ\tOK\n")


def test_a_full_disk_of_a_trace(waits: Path) -> None:
    """-o: the same."""
    done = ran("trace", "-o", "/dev/full", "--", waits)
    assert (done.returncode, done.stdout) == (125, "program\n")
    assert done.stderr == "kvmabi: /dev/full: cannot be written: No space left on device; the trace is not complete\n"


def test_a_full_disk_under_stderr(waits: Path) -> None:
    """Nothing can be said; the status is kvmabi's own failure, as for -o."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "trace", "--", waits], stdout=subprocess.PIPE, stderr=full, text=True)
    assert (done.returncode, done.stdout) == (125, "program\n")


def test_stderr_is_closed(waits: Path) -> None:
    """Nobody reads the trace: the program's status stays."""
    done = subprocess.run(
        ["bash", "-c", '"$@" 2>&-', "bash", *COMMAND, "trace", "--", waits], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "program\n")
