# SPDX-License-Identifier: MIT
"""``kvmabi trace --real``: on a machine's own /dev/kvm, for which an emulated one stands in that answers system calls.

Under ``kvmabi run --transport seccomp`` /dev/kvm looks real to everything inside, ``kvmabi trace`` included.
"""

from __future__ import annotations

import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ctools import INCLUDE, ROOT, compile_c

from cli.conftest import Kvmabi, one_line
from kvmabi.errors import UsageError
from kvmabi.interpose.program import Kind, Way
from kvmabi.interpose.transports import natively, watched

KVMABI = [sys.executable, "-m", "kvmabi"]
STAND_IN = [*KVMABI, "run", "--report", "none", "--transport", "seccomp", "--"]
THREADS = r"""
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>
static int vcpus[2], results[2];
static void nothing(int number) { (void)number; }
static void *run(void *unused)
{
    (void)unused;
    results[0] = ioctl(vcpus[0], KVM_RUN, 0) == -1 ? errno : 0;
    return NULL;
}
int main(void)
{
    struct sigaction action = { .sa_handler = nothing };
    struct kvm_vcpu_init init = { .target = 5 };
    pthread_t thread;
    uint64_t x1;
    struct kvm_one_reg reg = { 0x6030000000100002ULL, (uintptr_t)&x1 };
    int vm = ioctl(open("/dev/kvm", O_RDWR), KVM_CREATE_VM, 0), copy = dup(vm);

    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 2; i++) {
        vcpus[i] = ioctl(copy, KVM_CREATE_VCPU, i);
        ioctl(vcpus[i], KVM_ARM_VCPU_INIT, &init);
    }
    pthread_create(&thread, NULL, run, NULL);
    for (int i = 0; i < 20; i++)
        ioctl(vcpus[1], KVM_GET_ONE_REG, &reg);
    while (results[0] == 0) {
        pthread_kill(thread, SIGUSR1);
        usleep(10000);
    }
    pthread_join(thread, NULL);
    close(vm);
    vm = open("/dev/kvm", O_RDWR);
    printf("%d %d\n", results[0] == EINTR, ioctl(vm, KVM_GET_API_VERSION, 0));
    ioctl(1, KVM_CREATE_VM, 0);
    fflush(stdout);
    raise(SIGTERM);
}
"""


def real(*words: object) -> subprocess.CompletedProcess[str]:
    """``kvmabi trace --real`` of a program on the stand-in."""
    command = [*STAND_IN, *KVMABI, "trace", "--real", "--kernel", "sme-v12", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def built(folder: Path, source: str) -> Path:
    """A program."""
    program = folder / "program"
    flags = [f"-I{INCLUDE}", f"-I{ROOT / 'vmm_examples'}", "-w", "-pthread", "-o", str(program)]
    compile_c(source, flags)
    return program


def test_the_record_is_the_same_as_of_an_emulated_one(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Faults, devices, eventfds, another process: only the order of threads and the end of VMs are not in it."""
    program = built(tmp_path, (ROOT / "tests/steps/programs/everything.c").read_text("utf-8"))
    assert real("--record", tmp_path / "real.trace", "-o", tmp_path / "trace", "--", program).returncode == 0
    assert kvmabi("run", "--report", "none", "--record", str(tmp_path / "a.trace"), "--", str(program)).status == 0
    address = re.compile(r"(?<= 4020ae46 ).*")
    records = [
        [address.sub("", line) for line in (tmp_path / name).read_text("utf-8").splitlines() if line[0] not in "cUGL"]
        for name in ("real.trace", "a.trace")
    ]
    assert records[0][:4] == ["# host captured", "# kernel sme-v12", records[1][2], "# seq record"]
    assert records[0][4:] == records[1][4:]
    (tmp_path / "captured.toml").write_bytes((ROOT / "kvmabi/profiles/hosts/sme-demo.toml").read_bytes())
    ended = kvmabi("replay", str(tmp_path / "real.trace"))
    assert ended.out.endswith(" 0 mismatches\n"), ended.out


def test_the_trace_has_what_a_kernel_shows(tmp_path: Path) -> None:
    """Values, structs and errnos are those of an emulated one; reasons and effects are not known."""
    program = built(tmp_path, (ROOT / "vmm_examples/naive_list_order.c").read_text("utf-8"))
    command = [*KVMABI, "trace", "-o", str(tmp_path / "emulated"), "--", str(program)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert real("-o", tmp_path / "real", "--", program).returncode == 0
    cut = re.compile(r"  \(.*|(?<=_REG )(?=z|p\d|ffr)(\S+) = .*(?= ->)")
    traces = []
    for name in ("emulated", "real"):
        lines = (tmp_path / name).read_text("utf-8").splitlines()
        traces.append([cut.sub(r"\1", line) for line in lines if "cnt" not in line and "+++" not in line])
    assert traces[0] == traces[1]
    assert len(traces[0]) > 800


def test_threads_signals_copies_and_reused_descriptors(tmp_path: Path) -> None:
    """A thread in KVM_RUN holds up no other, a signal ends it; the program's output and its death are its own."""
    trace = tmp_path / "trace"
    done = real("-o", trace, "--", built(tmp_path, THREADS))
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "1 12\n")
    lines = trace.read_text("utf-8").splitlines()
    (run,) = [place for place, line in enumerate(lines) if "RUN" in line]
    assert lines[run] == "vm1/vcpu0 RUN -> EINTR  (exit INTR; Interrupted system call)"
    assert run > max(place for place, line in enumerate(lines) if line == "vm1/vcpu1 GET_ONE_REG x1 = 0 -> 0")
    assert "vm1 CREATE_VCPU 1 -> vcpu1" in lines
    assert lines[-1] == "kvm GET_API_VERSION -> 12"


@pytest.mark.skipif(platform.machine() == "aarch64", reason="this machine may have an arm64 KVM")
def test_a_machine_without_it(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """One line, before the program starts."""
    one_line(kvmabi("trace", "--real", "--", "touch", str(tmp_path / "ran")), 125, "/dev/kvm")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.PRELOADABLE])
def test_a_program_that_cannot_be_watched(kind: Kind) -> None:
    """The line says why; the kernel's own way of asking cannot let the program do the call."""
    with pytest.raises(UsageError, match="a file cannot be watched on the machine's own /dev/kvm: "):
        watched(Way(kind, "a file"), None)
    with pytest.raises(UsageError, match="through the preloaded library only"):
        watched(Way(Kind.PRELOADABLE, "a file"), "seccomp")
    assert watched(Way(Kind.PRELOADABLE, "a file"), "preload") is natively
