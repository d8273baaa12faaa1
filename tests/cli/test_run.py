# SPDX-License-Identifier: MIT
"""``kvmabi run``: the exit status is the program's, or reports findings; stderr holds the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ctools import INCLUDE, compile_c

from cli.readers import run_of, suite_of
from cli.schemas import validate

OPEN_ONLY = """
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
int main(int argc, char **argv)
{
    int fd = open("/dev/kvm", O_RDWR);
    if (fd < 0 || ioctl(fd, KVM_GET_API_VERSION, 0) != 12)
        return 77;
    if (argc > 2)
        raise(atoi(argv[2]));
    return argc > 1 ? atoi(argv[1]) : 0;
}
"""
KILLS_VM = """
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
int main(void)
{
    int vm = ioctl(open("/dev/kvm", O_RDWR), KVM_CREATE_VM, 0), vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    struct kvm_vcpu_init init = { .target = 5 };
    struct kvm_create_device device = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };

    if (ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) || ioctl(vm, KVM_CREATE_DEVICE, &device))
        return 77;
    return ioctl(vcpu, KVM_RUN, 0) ? 0 : 77;
}
"""
LATE_SVCR = """
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
static void nothing(int number) { (void)number; }
int main(int argc, char **argv)
{
    int vm = ioctl(open("/dev/kvm", O_RDWR), KVM_CREATE_VM, 0), vcpu = ioctl(vm, KVM_CREATE_VCPU, 0), vec = 4;
    struct kvm_vcpu_init init = { .target = 5, .features = { 1 << KVM_ARM_VCPU_SVE | 1 << KVM_ARM_VCPU_SME } };
    unsigned char z[256] = { 1, 2, 3 };
    unsigned long long sm = 1;
    struct kvm_one_reg reg = { KVM_REG_ARM64_SVE_ZREG(9, 0), (unsigned long)z };

    if (ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) || ioctl(vcpu, KVM_ARM_VCPU_FINALIZE, &vec) ||
        ioctl(vcpu, KVM_SET_ONE_REG, &reg))
        return 77;
    reg.id = ARM64_SYS_REG(3, 3, 4, 2, 2);
    reg.addr = (unsigned long)&sm;
    if (ioctl(vcpu, KVM_SET_ONE_REG, &reg))
        return 77;
    alarm(1); /* ends KVM_RUN: the guest idles */
    signal(SIGALRM, nothing);
    return ioctl(vcpu, KVM_RUN, 0) != -1 || errno != EINTR ? 77 : argc > 1 ? atoi(argv[1]) : 0;
}
"""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs: one that only opens /dev/kvm, one that loses a register, one that loses its VM."""
    folder = tmp_path_factory.mktemp("run")
    for name, source in (("quiet", OPEN_ONLY), ("lossy", LATE_SVCR), ("kills", KILLS_VM)):
        compile_c(source, ["-std=gnu11", f"-I{INCLUDE}", "-o", str(folder / name)])
    return folder


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """kvmabi run with these words."""
    command = [sys.executable, "-m", "kvmabi", "run", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 1, 2, 99, 125, 255])
def test_status_is_the_programs_own(programs: Path, status: int) -> None:
    """Without findings, whatever the program says; the report says that nothing was judged."""
    done = run("--", programs / "quiet", str(status))
    assert done.returncode == status
    assert "nothing was judged" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
def test_signal_is_128_and_its_number(programs: Path, number: signal.Signals) -> None:
    assert run("--", programs / "quiet", "0", str(int(number))).returncode == 128 + number


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        ((), 0, 99),
        (("--error-exitcode", "7"), 0, 7),
        (("--error-exitcode=0",), 0, 0),
        ((), 3, 3),
        (("--error-exitcode", "7"), 3, 3),
    ],
)
def test_findings_have_a_status(programs: Path, options: tuple[str, ...], status: int, expected: int) -> None:
    """99, or the requested status, if the program ended with 0; else the program's."""
    done = run(*options, "--", programs / "lossy", str(status))
    assert done.returncode == expected
    assert "1 finding" in done.stderr
    assert "z9" in done.stderr


@pytest.mark.slow
def test_no_report(programs: Path, tmp_path: Path) -> None:
    """--report none: the program's status, and nothing is reported; a log has the ioctls all the same."""
    done = run("--report", "none", "--", programs / "lossy", "3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    done = run("--report", "none", "--log", tmp_path / "log", "--", programs / "lossy")
    assert (done.returncode, done.stderr) == (0, "")
    assert "KVM_SET_ONE_REG z9 = 010203" in (tmp_path / "log").read_text("utf-8")
    done = run("--report", "none", "--output", tmp_path / "out", "--", programs / "lossy")
    assert done.returncode == 125
    assert "--report none" in done.stderr


@pytest.mark.slow
def test_faults(programs: Path) -> None:
    """--fault reaches the program with and without a report, which says how often each rule struck."""
    rules = ("--fault", "GET_API_VERSION EIO once", "--fault", "CREATE_VM ENOMEM")
    done = run(*rules, "--", programs / "quiet")
    assert done.returncode == 77
    assert "  GET_API_VERSION EIO once: struck 1 of 1\n  CREATE_VM ENOMEM: struck 0 of 0\n" in done.stderr
    assert "EIO: a fault that was asked for: GET_API_VERSION EIO once" in done.stderr
    report = validate("run", run(*rules, "--format", "json", "--", programs / "quiet").stderr)
    assert report["faults"] == ["GET_API_VERSION EIO once: struck 1 of 1", "CREATE_VM ENOMEM: struck 0 of 0"]
    assert run(*rules, "--report", "none", "--", programs / "quiet").returncode == 77
    done = run("--fault", "GET_API_VERSIO EIO", "--", programs / "quiet")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "no ioctl is named GET_API_VERSIO" in done.stderr


def test_an_interrupted_ioctl_that_was_asked_for_is_named(programs: Path) -> None:
    """EINTR is no refusal of the kernel's; as a fault it is what the program failed with."""
    done = run("--fault", "GET_API_VERSION EINTR once", "--", programs / "quiet")
    assert done.returncode == 77
    assert "EINTR: a fault that was asked for: GET_API_VERSION EINTR once" in done.stderr


def test_a_vm_that_a_run_killed_is_warned_of(programs: Path) -> None:
    """A VMM that ignores KVM_RUN's error ends with 0; the report says that the VM is dead."""
    done = run("--", programs / "kills")
    assert done.returncode == 0
    assert "warnings:" in done.stderr
    assert "the VM is dead" in done.stderr
    report = json.loads(run("--report", "json", "--", programs / "kills").stderr)
    assert len(report["warnings"]) == 1


@pytest.mark.slow
def test_report_as_json(programs: Path) -> None:
    """The whole of stderr is one JSON value if the program wrote nothing there."""
    report = json.loads(run("--report", "json", "--", programs / "lossy").stderr)
    assert report["events"] >= 6
    (finding,) = report["findings"]
    assert finding["kind"] == "destroyed-by-svcr"
    assert [register["name"] for register in finding["registers"]] == ["z9"]
    assert json.loads(run("--report", "json", "--", programs / "quiet").stderr)["findings"] == []


@pytest.mark.slow
def test_kernel_without_sme(programs: Path) -> None:
    """--kernel takes another kernel under the same host: INIT refuses SME there."""
    assert run("--kernel", "linux-7.3", "--", programs / "lossy").returncode == 77


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "status"),
    [("/nonexistent/program", 127), ("no-such-program-anywhere", 127), ("/", 126), ("plain", 126)],
)
def test_program_that_cannot_be_run(tmp_path: Path, program: str, status: int) -> None:
    """127 if it is not found, 126 if it is not a program, as env does; one line says which."""
    (tmp_path / "plain").write_text("not executable")
    done = run("--", tmp_path / "plain" if program == "plain" else program)
    assert done.returncode == status
    assert done.stderr.startswith("kvmabi: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_misuse_and_unreached_programs_are_125(tmp_path: Path) -> None:
    """kvmabi's own failures: options, hosts, and programs that a transport cannot reach."""
    assert run("--host", "nowhere", "--", "true").returncode == 125
    assert run().returncode == 125
    static = tmp_path / "static"
    source = "int main(void) { return 0; }"
    built = subprocess.run(["gcc", "-static", "-x", "c", "-", "-o", static], input=source, text=True, check=False)
    if built.returncode:
        pytest.skip("no static C library here")
    done = run("--transport", "preload", "--", static)
    assert done.returncode == 125
    assert "linked statically" in done.stderr
    assert run("--", static).returncode == 0


@pytest.mark.slow
def test_words_after_the_program_are_the_programs(programs: Path) -> None:
    """Options that look like kvmabi's own, with and without the double dash."""
    for dash in (("--",), ()):
        done = run(*dash, "sh", "-c", 'echo "$@"', "sh", "--host", "x", "--", "--report")
        assert (done.returncode, done.stdout) == (0, "--host x -- --report\n")


@pytest.mark.slow
def test_stdin_and_stdout_are_the_programs() -> None:
    command = [sys.executable, "-m", "kvmabi", "run", "--", "cat"]
    done = subprocess.run(command, input="through", capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "through")


@pytest.mark.slow
def test_junit_and_sarif(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of stderr is the report, if the program wrote nothing there; SARIF locates it, also in PATH."""
    suite = suite_of(run("--format", "junit", "--", programs / "lossy").stderr)
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "destroyed-by-svcr"
    assert suite_of(run("--format", "junit", "--", programs / "quiet").stderr).get("failures") == "0"
    done = run("--format", "sarif", "--", programs / "lossy")
    assert done.returncode == 99
    (result,) = run_of(done.stderr)["results"]
    assert (result["ruleId"].partition("/")[0], result["level"]) == ("destroyed-by-svcr", "error")
    uri = (programs / "lossy").as_uri()
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    (result,) = run_of(run("--format", "sarif", "--", "lossy").stderr)["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


@pytest.mark.slow
def test_report_in_a_file_is_announced(programs: Path, tmp_path: Path) -> None:
    """With findings and --output stderr has one line, which names the file; without findings it has none."""
    path = tmp_path / "report.json"
    done = run("--json", "--output", path, "--", programs / "lossy")
    assert done.returncode == 99
    assert done.stderr == f"kvmabi: 1 finding (1 lost): the report is in {path}\n"
    assert validate("run", path.read_text("utf-8"))["verdict"] == "lost"
    assert run("--output", path, "--", programs / "quiet").stderr == ""


@pytest.mark.slow
def test_annotations(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In GitHub Actions a finding is annotated below the text; not in another form, nor with a file."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = run("--", programs / "lossy")
    assert done.stdout == ""
    *report, annotation = done.stderr.splitlines()
    assert report[0].startswith("kvmabi: ")
    assert annotation.startswith("::error title=kvmabi%3A ")
    validate("run", run("--json", "--", programs / "lossy").stderr)
    path = tmp_path / "report.txt"
    assert "::error" not in run("--output", path, "--", programs / "lossy").stderr + path.read_text("utf-8")
