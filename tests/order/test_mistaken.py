# SPDX-License-Identifier: MIT
"""Feature bits by another kernel's number: who is told, who is not, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from ctools import INCLUDE, compile_c

import kvmabi
from kvmabi import Kvm, KvmError, uapi
from kvmabi.order import Finding, OrderChecker, Severity
from kvmabi.profiles import load_kernel

PMU, SVE, STRICT, SME_73 = 1 << 3, 1 << 4, 1 << 9, 1 << 10


class Vmm:
    """A VMM that knows numbers, not names: its ioctls are judged as under kvmabi run."""

    def __init__(self, kvm: Kvm) -> None:
        self.kvm = kvm
        self.checker = OrderChecker(kernel=kvm.kernel)
        kvm.log.watchers.append(self.checker.watch)
        self.vm = kvm.create_vm()

    def check(self, capability: int, *, on_vm: bool = False) -> int:
        """KVM_CHECK_EXTENSION."""
        return self.kvm.ioctl(self.vm.fd if on_vm else self.kvm.fd, uapi.KVM_CHECK_EXTENSION, capability)

    def vcpu(self, word: int, index: int = 0) -> str:
        """KVM_ARM_VCPU_INIT of a new vCPU, then a look at SVCR and x0; returns the errno's name of INIT, or "OK"."""
        vcpu = self.vm.create_vcpu(index)
        init = uapi.ffi.new("struct kvm_vcpu_init *", {"target": 5, "features": [word]})
        try:
            self.kvm.ioctl(vcpu.fd, uapi.KVM_ARM_VCPU_INIT, init)
        except KvmError as error:
            return error.name
        vcpu["x0"]
        self._vcpu = vcpu
        return "OK"

    def svcr(self) -> None:
        """An access to SVCR of the last vCPU, whatever comes of it."""
        with suppress(KvmError):
            self._vcpu["svcr"]

    def found(self) -> list[Finding]:
        """The findings about feature bits."""
        return [of for of in self.checker.verdict().findings if of.kind == "feature-bit"]


@contextmanager
def vmm(host: str, kernel: str) -> Iterator[Vmm]:
    """A VMM on a host."""
    with kvmabi.open(host=host, kernel=kernel) as kvm:
        yield Vmm(kvm)


def test_sme_that_is_strict() -> None:
    """Bit 9 on 7.3 and an access to SME's registers: the VMM got PMU_V3_STRICT, and its run fails."""
    with vmm("qemu-max", "linux-7.3") as asked:
        assert asked.vcpu(PMU | STRICT) == "OK"
        asked.svcr()
        (found,) = asked.found()
        assert asked.checker.verdict().fails()
    assert (found.cause, found.severity, found.vm, found.vcpu) == ("bit-mistaken", Severity.CHANGED, 1, 0)
    assert "on linux-7.3 that is PMU_V3_STRICT, and the vCPU has it" in found.notes[0]
    assert "bit 9 is SME on" in found.notes[1]
    assert "linux-7.3 has no SME" in found.notes[1]
    assert ["svcr: ENOENT" in line for line in found.lines] == [False, True]
    assert str(found).splitlines()[0] == f"changed: {found.title}: VM 1 vCPU 0"


def test_without_an_access_it_is_latent() -> None:
    """A VMM that may know what it asks for has not failed."""
    with vmm("qemu-max", "linux-7.3") as asked:
        assert asked.vcpu(PMU | STRICT) == "OK"
        (found,) = asked.found()
        assert not asked.checker.verdict().fails()
    assert (found.cause, found.severity) == ("bit-unchecked", Severity.LATENT)
    assert "without asking for its capability, 251" in found.notes[0]


@pytest.mark.parametrize("on_vm", [False, True])
def test_who_asks_for_the_capability_knows(on_vm: bool) -> None:
    """KVM_CHECK_EXTENSION(251) on either file; another capability, or one of SME's, does not count."""
    with vmm("qemu-max", "linux-7.3") as asked:
        asked.check(252, on_vm=on_vm)
        assert asked.vcpu(PMU | STRICT) == "OK"
        assert asked.found()
    with vmm("qemu-max", "linux-7.3") as asked:
        assert asked.check(251, on_vm=on_vm) == 1
        assert asked.vcpu(PMU | STRICT) == "OK"
        asked.svcr()
        assert asked.found() == []


@pytest.mark.parametrize(
    ("host", "kernel", "word", "errno", "words"),
    [
        ("qemu-max", "linux-7.3", STRICT, "EINVAL", "on linux-7.3 that is PMU_V3_STRICT, and was refused"),
        ("sme-demo", "linux-7.3", PMU | STRICT, "EINVAL", "that is PMU_V3_STRICT, and was refused"),
        ("sme-demo", "sme-forecast", SVE | STRICT, "EINVAL", "on sme-forecast that is PMU_V3_STRICT, and was refused"),
        ("sme-demo", "sme-v12", SVE | SME_73, "ENOENT", "feature bit 10, which sme-v12 does not know"),
    ],
)
def test_refused(host: str, kernel: str, word: int, errno: str, words: str) -> None:
    """An INIT that fails gets a latent finding: what the bit means here, and where what was meant is."""
    with vmm(host, kernel) as asked:
        assert asked.vcpu(word) == errno
        (found,) = asked.found()
    assert (found.cause, found.losses) == ("bit-unchecked", ())
    assert words in found.notes[0]
    assert f"{kernel} has " in found.notes[1]


@pytest.mark.parametrize(
    ("host", "kernel", "word"),
    [
        ("sme-demo", "sme-v12", SVE | STRICT),  # SME as it should be: PMU_V3_STRICT comes with PMU_V3 only
        ("sme-demo", "sme-forecast", SVE | SME_73),
        ("sme-demo", "linux-7.2", SME_73),  # unknown here, and there is no SME anywhere else
        ("sme-demo", "sme-v12", 1 << 30),
        ("qemu-max", "linux-7.3", PMU | SVE),
        ("cortex-a57", "linux-6.1", 1 << 7),
    ],
)
def test_nothing_to_mistake(host: str, kernel: str, word: int) -> None:
    """Bits that mean one thing, or that no kernel like this one has elsewhere."""
    with vmm(host, kernel) as asked:
        asked.vcpu(word)
        assert asked.found() == []


def test_who_uses_sme_knows_it() -> None:
    """PMU_V3 and bit 9 on the series' kernel could be PMU_V3_STRICT: until the VMM touches SME's registers."""
    with vmm("sme-demo", "sme-v12") as asked:
        assert asked.vcpu(PMU | SVE | STRICT) == "OK"
        (found,) = asked.found()
        assert "on sme-v12 that is SME, and the vCPU has it" in found.notes[0]
        asked.svcr()
        assert asked.found() == []


def test_all_vcpus_are_one_finding() -> None:
    """The first stands for all; a question changes no answer."""
    with vmm("qemu-max", "linux-7.3") as asked:
        for index in range(100):
            assert asked.vcpu(PMU | STRICT, index) == "OK"
        assert asked.found() == asked.found()
        (found,) = asked.found()
    assert (found.vcpu, found.notes[-1]) == (0, "so did 63 more vCPUs")


def test_features_by_name_are_not_judged() -> None:
    """kvmabi.open takes names, which are right on every kernel."""
    with kvmabi.open(host="qemu-max", kernel="linux-7.3") as kvm:
        kvm.create_vm().create_vcpu(0).init({"pmu_v3", "pmu_v3_strict"})
        assert kvm.findings() == []


PROGRAM = """
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR), vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    struct kvm_vcpu_init init = { .target = 5, .features = { 1 << KVM_ARM_VCPU_PMU_V3 | 1 << KVM_ARM_VCPU_SME } };
    unsigned long long svcr = 3;
    struct kvm_one_reg reg = { ARM64_SYS_REG(3, 3, 4, 2, 2), (unsigned long)&svcr };

    if (ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) < 0)
        return 1;
    ioctl(vcpu, KVM_SET_ONE_REG, &reg);
    return 0;
}
"""


@pytest.mark.parametrize("form", ["json", "text", "sarif", "junit"])
def test_program(tmp_path: Path, form: str) -> None:
    """A program with the header's numbers on 7.3: every form of the report says what it got, and the run fails."""
    program, report = tmp_path / "vmm", tmp_path / "report"
    compile_c(PROGRAM, ["-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", "-o", str(program)])
    words = [
        "--host",
        "qemu-max",
        "--kernel",
        "linux-7.3",
        "--saves",
        "none",
        "--format",
        form,
        "--output",
        str(report),
    ]
    done = subprocess.run([sys.executable, "-m", "kvmabi", "run", *words, "--", str(program)], check=False)
    assert done.returncode == 99
    text = report.read_text("utf-8")
    assert "PMU_V3_STRICT" in text
    if form == "json":
        data = json.loads(text)
        assert [of["cause"] for of in data["findings"]] == ["bit-mistaken"]
        assert (data["verdict"], data["notes"]) == ("changed", [])


@pytest.mark.parametrize("form", ["json", "text", "sarif", "junit"])
def test_forecast_is_marked_in_every_report(tmp_path: Path, form: str) -> None:
    """A run under a kernel that does not exist says so."""
    report = tmp_path / "report"
    words = ["--host", "sme-demo", "--kernel", "sme-forecast", "--format", form, "--output", str(report)]
    subprocess.run([sys.executable, "-m", "kvmabi", "run", *words, "--", "true"], check=True)
    assert f"sme-forecast is a forecast: {load_kernel('sme-forecast').forecast}" in report.read_text("utf-8")
