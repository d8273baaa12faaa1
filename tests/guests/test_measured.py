# SPDX-License-Identifier: MIT
"""One program, real guest code on real kernels, and a script under kvmabi: every exit leaves the same behind.

The recordings are what measured/exits.c printed as the init of Debian's kernels under QEMU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ctools import CC, CROSS_CC, INCLUDE, STRICT
from lacking import needs

from kvmabi.steps.vm import qemu
from kvmabi.steps.vm.initramfs import initramfs

IMAGE_VARIABLE = "KVMABI_KERNEL_IMAGE"
BOOT_SECONDS = 600
HERE = Path(__file__).parent / "measured"
PATIENCE = "-DPATIENCE_US=30000"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, which waits for less long than where it was recorded."""
    target = tmp_path_factory.mktemp("measured") / "exits"
    flags = ("-std=c11", "-D_GNU_SOURCE", *STRICT, PATIENCE, f"-I{INCLUDE}")
    subprocess.run([*CC, *flags, str(HERE / "exits.c"), "-o", str(target)], check=True)
    return target


@pytest.mark.parametrize("recording", sorted(HERE.glob("linux-*.txt")), ids=lambda path: path.stem)
def test_exits_are_those_of_a_real_kernel(program: Path, recording: Path) -> None:
    """Return values, struct kvm_run, PC, X0 to X3, the MP states, dirty pages and the eventfd, step by step."""
    words = ["--report", "none", "--kernel", recording.stem, "--guest", str(HERE / "script.py"), "--", str(program)]
    done = subprocess.run([sys.executable, "-m", "kvmabi", "run", *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == recording.read_text("utf-8").splitlines()


@pytest.mark.slow
@needs(*CROSS_CC, what="an arm64 cross compiler")
def test_a_real_kernel_prints_one_of_the_recordings(tmp_path: Path) -> None:
    """The kernel that KVMABI_KERNEL_IMAGE names, with the program as its init."""
    image = os.environ.get(IMAGE_VARIABLE)
    if not image:
        pytest.skip(f"{IMAGE_VARIABLE} names no arm64 kernel: make oracle fetches one")
    flags = ("-std=c11", "-D_GNU_SOURCE", "-static", *STRICT, f"-I{INCLUDE}")
    subprocess.run([*CROSS_CC, *flags, str(HERE / "exits.c"), "-o", str(tmp_path / "init")], check=True)
    (tmp_path / "initrd").write_bytes(initramfs((tmp_path / "init").read_bytes()))
    machine = ["-M", qemu.MACHINE, "-cpu", qemu.CPU, "-accel", "tcg,thread=single", "-m", str(qemu.MEMORY_MIB)]
    bare = ["-nodefaults", "-nic", "none", "-display", "none", "-no-reboot", "-serial", "stdio"]
    kernel = ["-kernel", image, "-initrd", str(tmp_path / "initrd"), "-append", qemu.KERNEL_ARGUMENTS]
    done = subprocess.run([qemu.QEMU, *machine, *bare, *kernel], capture_output=True, text=True, timeout=BOOT_SECONDS)
    output = done.stdout.replace("\r", "")
    said = output[output.index("begin\n") : output.index("end\n")] + "end\n"
    assert said in [recording.read_text("utf-8") for recording in HERE.glob("linux-*.txt")]
