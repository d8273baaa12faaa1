# SPDX-License-Identifier: MIT
"""What ``validate`` costs for a vCPU whose shape was seen before, and for one whose shape was not.

python benchmarks/validate.py [--blobs N] [--host HOST] [--svcr N]

Prints microseconds of CPU time a vCPU, without and with a target: for clean snapshots, as a fleet's are, for ones whose
vector lengths are unknown, as QEMU's, for ones with a bit beyond the length, and for new shapes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import kvmabi
from kvmabi import regid
from kvmabi.model.plan import LENGTHS
from kvmabi.snapshot import validate as validating
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot, VcpuSnapshot
from kvmabi.snapshot.target import Target
from kvmabi.snapshot.validate import validate

ROUNDS = 5
Registers = dict[int, bytes]
NOT_ALWAYS = frozenset({"el1_32bit", "power_off", "has_el2", "has_el2_e2h0", "pmu_v3_strict"})


def saved(host: str, svcr: int) -> tuple[Registers, frozenset[str]]:
    """The registers and features of a vCPU of a host."""
    with kvmabi.open(host=host, checked=False) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        features = kvm.vcpu_model(vcpu.fd).system.features - NOT_ALWAYS
        vcpu.init(features)
        vcpu.finalize()
        vcpu["svcr"] = svcr
        return {id: vcpu[id] for id in vcpu.reg_list()}, features


def fresh(registers: Registers, features: frozenset[str], format: str) -> Snapshot:
    """A snapshot as a reader makes it: no ID and no value is the same object as another snapshot's."""
    copy = {int(str(id)): bytes(bytearray(data)) for id, data in registers.items()}
    unknown = frozenset({Fact.ORDER, Fact.LONG_Z, Fact.VECTOR_LENGTHS} if format == "qemu" else {Fact.ORDER})
    return Snapshot(format, [VcpuSnapshot(0, copy)], Origin.KVM, features, unknown=unknown)


def microseconds(make: Callable[[], Snapshot], target: Target | None, count: int, *, forget: bool = False) -> float:
    """The CPU time of validate a snapshot, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        snapshots = [make() for _ in range(count)]
        spent = 0.0
        for snapshot in snapshots:
            if forget:
                validating._judged.clear()
                validating._layouts.clear()
            start = time.process_time()
            validate(snapshot, target)
            spent += time.process_time() - start
        best = min(best, spent / count * 1e6)
    return best


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, default=300, help="snapshots a round")
    parser.add_argument("--host", default="sme-sve256-sme512-nofa64")
    parser.add_argument("--svcr", type=int, default=2)
    options = parser.parse_args()
    registers, features = saved(options.host, options.svcr)
    without_lengths = {id: data for id, data in registers.items() if id not in LENGTHS}
    z0 = regid.parse("z0")
    beyond = registers | {z0: registers[z0][:-1] + b"\1"}
    kinds: dict[str, tuple[Callable[[], Snapshot], bool]] = {
        "clean": (lambda: fresh(registers, features, "kvmabi"), False),
        "lengths unknown": (lambda: fresh(without_lengths, features, "qemu"), False),
        "a bit beyond the length": (lambda: fresh(beyond, features, "kvmabi"), False),
        "a new shape": (lambda: fresh(registers, features, "kvmabi"), True),
    }
    print(f"{options.host}, SVCR = {options.svcr}, {len(registers)} registers; µs a vCPU")
    print(f"{'':26}{'no target':>12}{'target':>12}")
    target = Target.of(host=options.host)
    for name, (make, forget) in kinds.items():
        count = options.blobs // 10 if forget else options.blobs
        spent = [microseconds(make, where, count, forget=forget) for where in (None, target)]
        print(f"{name:26}" + "".join(f"{each:>12.1f}" for each in spent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
