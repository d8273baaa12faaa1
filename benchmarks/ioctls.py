# SPDX-License-Identifier: MIT
"""The cost of an ioctl: answered by the host's kernel, in Python, and interposed.

Run it with: .venv/bin/python benchmarks/ioctls.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kvmabi
from kvmabi import uapi

HERE = Path(__file__).parent
ROUNDS = 20000


def in_python() -> dict[str, float]:
    """Nanoseconds of KVM_GET_ONE_REG and of a save of all registers, both in this process."""
    with kvmabi.open(host="sme-demo", kept_events=0) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve", "sme"})
        vcpu.finalize()
        vcpu["svcr"] = 3
        value = uapi.ffi.new("__u64 *")
        reg = uapi.ffi.new(
            "struct kvm_one_reg *", {"id": vcpu.reg_list()[0], "addr": int(uapi.ffi.cast("long", value))}
        )
        start = time.perf_counter()
        for _ in range(ROUNDS):
            kvm.ioctl(vcpu.fd, uapi.KVM_GET_ONE_REG, reg)
        get = (time.perf_counter() - start) / ROUNDS
        start = time.perf_counter()
        saved = {id: vcpu[id] for id in vcpu.reg_list()}
        save = time.perf_counter() - start
        return {f"save of {len(saved)} registers, objects": save * 1e9, "get, Kvm.ioctl": get * 1e9}


def interposed() -> dict[str, float]:
    """The same from a C program under ``kvmabi run``."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "interposed")
        source = HERE / "interposed.c"
        include = HERE.parent / "include"
        subprocess.run(["cc", "-std=gnu11", "-O2", f"-I{include}", source, "-o", program], check=True)
        command = [sys.executable, "-m", "kvmabi", "run", "--", str(program)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    figures = dict(zip(lines[::2], map(float, lines[1::2]), strict=True))
    return {
        "save of 351 registers, interposed": figures["save"],
        "get, interposed": figures["get"],
        "ioctl on another file, interposed": figures["foreign"],
    }


def main() -> None:
    """Print all figures and their ratio to an ioctl that the kernel answers."""
    figures = interposed() | in_python()
    unit = figures["ioctl on another file, interposed"]
    for name, nanoseconds in figures.items():
        print(f"{name:36} {nanoseconds / 1000:10.1f} µs  {nanoseconds / unit:8.1f} times a system call")


if __name__ == "__main__":
    main()
