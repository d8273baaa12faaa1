# SPDX-License-Identifier: MIT
"""What an ioctl costs in each of the ways to make one, side by side: the host's kernel, in Python, interposed.

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
    """Nanoseconds of KVM_GET_ONE_REG and of a whole save, both in this process."""
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
    told = dict(zip(lines[::2], map(float, lines[1::2]), strict=True))
    return {
        "save of 351 registers, interposed": told["save"],
        "get, interposed": told["get"],
        "ioctl on another file, interposed": told["foreign"],
    }


def main() -> None:
    """Print every figure and its ratio to an ioctl that goes straight to the kernel."""
    figures = interposed() | in_python()
    unit = figures["ioctl on another file, interposed"]
    for name, nanoseconds in figures.items():
        print(f"{name:36} {nanoseconds / 1000:10.1f} µs  {nanoseconds / unit:8.1f} times a system call")


if __name__ == "__main__":
    main()
