# SPDX-License-Identifier: MIT
"""The Python path now and at another commit, measured in turn on this machine: the ratio holds when its speed drifts.

python benchmarks/side_by_side.py REVISION [TRACE HOSTS_FOLDER]

A trace adds how long ``kvmabi replay`` takes for it, start-up included.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
ROUNDS = 5
FIGURES = "--figures"
"""The argument of the runs that measure: the rest of the command line is a trace and the folder of its host."""


def figures(trace: list[str]) -> dict[str, float]:
    """Microseconds of each access, and of a replay, of the kvmabi that can be imported here."""
    import time
    import timeit

    import kvmabi
    from kvmabi import uapi

    def microseconds(statement: str, number: int, **names: object) -> float:
        return min(timeit.repeat(statement, globals=names, number=number, repeat=3)) / number * 1e6

    measured: dict[str, float] = {}
    for watched in (False, True):
        kvm = kvmabi.open(host="sme-demo", kept_events=10_000 if watched else 0)
        if not watched:
            kvm.log.watchers.clear()
        with kvm:
            vcpu = kvm.create_vm().create_vcpu(0)
            vcpu.init({"sve", "sme"})
            vcpu.finalize()
            vcpu["svcr"] = 3
            value = uapi.ffi.new("__u64 *")
            address = int(uapi.ffi.cast("uintptr_t", value))
            reg = uapi.ffi.new("struct kvm_one_reg *", {"id": vcpu.reg_list()[0], "addr": address})
            how = "checker watching" if watched else "nobody watching"
            measured[f'vcpu["x0"], {how}'] = microseconds('vcpu["x0"]', 5000, vcpu=vcpu)
            measured[f'vcpu["x0"] = 5, {how}'] = microseconds('vcpu["x0"] = 5', 5000, vcpu=vcpu)
            one_reg = "kvm.ioctl(fd, request, reg)"
            names = {"kvm": kvm, "fd": vcpu.fd, "request": uapi.KVM_GET_ONE_REG, "reg": reg}
            measured[f"Kvm.ioctl(KVM_GET_ONE_REG), {how}"] = microseconds(one_reg, 2000, **names)
            save = "{id: vcpu[id] for id in vcpu.reg_list()}"
            measured[f"save of 415 registers, {how}"] = microseconds(save, 5, vcpu=vcpu)
    if trace:
        start = time.perf_counter()
        command = [sys.executable, "-m", "kvmabi", "replay", "--hosts", trace[1], trace[0]]
        subprocess.run(command, check=True, capture_output=True)
        measured[f"replay of {Path(trace[0]).name}"] = (time.perf_counter() - start) * 1e6
    return measured


def run(checkout: Path, trace: list[str]) -> dict[str, float]:
    """The figures of a checkout, from a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, str(HERE), FIGURES, *trace]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=checkout)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main(revision: str, trace: list[str]) -> None:
    """Print the medians of both and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder, "before")
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(before), revision], check=True)
        try:
            subprocess.run([sys.executable, str(before / "kvmabi" / "build_uapi.py")], check=True)
            rounds = [(run(before, trace), run(ROOT, trace)) for _ in range(ROUNDS)]
        finally:
            subprocess.run([*git, "remove", "--force", str(before)], check=True)
    print(f"{'microseconds, medians of ' + str(ROUNDS):50} {revision[:12]:>12} {'now':>12} {'ratio':>7}")
    for name in rounds[0][1]:
        then, now = (statistics.median(pair[side][name] for pair in rounds) for side in (0, 1))
        print(f"{name:50} {then:12.2f} {now:12.2f} {then / now:7.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == [FIGURES]:
        print(json.dumps(figures(sys.argv[2:])))
    elif len(sys.argv) in (2, 4):
        main(sys.argv[1], [str(Path(word).resolve()) for word in sys.argv[2:]])
    else:
        sys.exit(__doc__)
