# SPDX-License-Identifier: MIT
"""A command in a VM: its files out of packages made here, what its console says, and a real boot where a kernel is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from arm64_vm import boot, tree
from ctools import CROSS_CC, INCLUDE, compile_c
from lacking import needs

from kvmabi.errors import UsageError
from kvmabi.steps.vm import qemu
from kvmabi.steps.vm.initramfs import DIRECTORY, archive
from scripts.test_kernel import package

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = os.environ.get("KVMABI_KERNEL_IMAGE")


@needs("dpkg-deb")
def test_the_files_of_packages_and_of_kvmabi(tmp_path: Path) -> None:
    """Each folder comes before its files, kvmabi is whole, documentation is left out, /lib leads to /usr/lib."""
    packages = [
        package(tmp_path, "one", "usr/lib/aarch64-linux-gnu/libone.so"),
        package(tmp_path, "two", "usr/share/doc/two/copyright"),
    ]
    program = tmp_path / "my-vmm"
    program.write_bytes(b"VMM")
    found = tree.entries(packages, ["kvmabi", "hosts"], [program])
    names = [entry.name for entry in found]
    assert len(names) == len(set(names))
    for number, name in enumerate(names):
        parent = str(Path(name).parent)
        assert parent == "." or parent in names[:number], name
    by_name = {entry.name: entry for entry in found}
    assert by_name["usr/lib/aarch64-linux-gnu/libone.so"].data == b"IMAGE"
    assert by_name["usr/lib/aarch64-linux-gnu"].mode == DIRECTORY
    assert (stat.S_ISLNK(by_name["lib"].mode), by_name["lib"].data) == (True, b"usr/lib")
    assert (by_name["my-vmm"].data, by_name["my-vmm"].mode & 0o777) == (b"VMM", 0o755)
    assert by_name["command.json"].data == b'["kvmabi", "hosts"]'
    assert by_name["source/kvmabi/regid.py"].data == (ROOT / "kvmabi" / "regid.py").read_bytes()
    assert "source/construct/core.py" in names
    assert not [name for name in names if "copyright" in name]
    assert archive(found).startswith(b"070701")


@needs("dpkg-deb")
def test_a_package_that_is_damaged(tmp_path: Path) -> None:
    """A download that was cut is a UsageError that names the file."""
    broken = tmp_path / "broken.deb"
    broken.write_bytes(b"!<arch>\nnothing")
    with pytest.raises(UsageError, match=r"broken\.deb: not a Debian package"):
        tree.entries([broken], ["true"])
    with pytest.raises(UsageError, match="nothing: No such file"):
        tree.entries([], ["true"], [tmp_path / "nothing"])


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A file that passes for a kernel."""
    path = tmp_path / "vmlinuz"
    path.write_bytes(b"\x1f\x8b" + bytes(62))
    return str(path)


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """A QEMU that runs this script instead."""
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(qemu, "QEMU", str(path))


def test_what_the_command_prints_and_its_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines are passed on without the console's carriage returns; the last line is the status, and QEMU is ended."""
    pretend(monkeypatch, tmp_path, r"printf 'one\r\ntwo\r\narm64-vm: ended 7\r\n'; exec sleep 60")
    assert boot.run(image, b"", 30) == 7
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize(
    ("script", "seconds", "why"),
    [
        ("echo Kernel panic", 30, "the VM ended before the command did"),
        ("echo 'arm64-vm: ended soon'", 30, "the VM ended before the command did"),
        ("exec sleep 60", 0.1, "the command did not end in time"),
    ],
)
def test_a_vm_that_does_not_end_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image: str, script: str, seconds: float, why: str
) -> None:
    """A VM that dies or hangs is a UsageError, not a status."""
    pretend(monkeypatch, tmp_path, script)
    with pytest.raises(UsageError, match=why):
        boot.run(image, b"", seconds)


@pytest.mark.slow
@pytest.mark.skipif(IMAGE is None, reason="KVMABI_KERNEL_IMAGE names no arm64 kernel")
@needs("qemu-system-aarch64", "apt-get", "dpkg-deb")
def test_a_real_kernel() -> None:
    """kvmabi runs inside, on the kernel's own /dev/kvm."""
    command = [sys.executable, "-m", "arm64_vm", "--kernel-image", str(IMAGE), "--", "kvmabi", "conformance"]
    done = in_vm([*command, "--backend", "device", "--case", "life.*"])
    assert done.returncode == 0, done.stderr
    assert ", 0 failed, " in done.stdout


def in_vm(words: list[str]) -> subprocess.CompletedProcess[str]:
    """How a command ended."""
    env = {**os.environ, "PYTHONPATH": "scripts"}
    return subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.skipif(IMAGE is None, reason="KVMABI_KERNEL_IMAGE names no arm64 kernel")
@needs("qemu-system-aarch64", "apt-get", "dpkg-deb", *CROSS_CC)
def test_a_vmm_is_traced_on_a_real_kernel(tmp_path: Path) -> None:
    """Its guest writes to a device and switches itself off: ioctls, values and exits are shown."""
    program = tmp_path / "runs_guest"
    source = (ROOT / "tests/scripts/programs/runs_guest.c").read_text("utf-8")
    compile_c(source, [f"-I{INCLUDE}", "-w", "-o", str(program)], compiler=CROSS_CC)
    command = [sys.executable, "-m", "arm64_vm", "--kernel-image", str(IMAGE), "--add", str(program), "--", "kvmabi"]
    done = in_vm([*command, "trace", "--real", "--full", "--", f"/{program.name}"])
    assert done.returncode == 3, done.stdout + done.stderr
    for line in (
        "vm1 CREATE_VCPU 0 -> vcpu0",
        "vm1/vcpu0 ARM_VCPU_INIT {target=5, features=psci_0_2} -> 0",
        "vm1/vcpu0 SET_ONE_REG pc = 0x10000 -> 0",
        "vm1/vcpu0 SET_ONE_REG s3_7_c15_c15_7 = 1 -> ENOENT  (No such file or directory)",
        "vm1/vcpu0 RUN -> 0  (exit MMIO {phys_addr=0x0, data=2a00*7., len=4, is_write=1})",
    ):
        assert line in done.stdout.splitlines(), done.stdout
    assert "RUN -> 0  (exit SYSTEM_EVENT {type=SHUTDOWN" in done.stdout
