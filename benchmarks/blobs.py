# SPDX-License-Identifier: MIT
"""How many blobs of kvmabi's own format one core reads and writes in a second.

Run it with: .venv/bin/python benchmarks/blobs.py

The blob is one vCPU with SVE 256, SME 512 and ZA on, in memory. Time is that of the process, not the clock's: a busy
machine does not change it much. Reading means: recognised, CRCs checked, every register sliced; not validated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import kvmabi
from kvmabi import regid
from kvmabi.model.row import size_of
from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import own
from kvmabi.snapshot.snapshot import Snapshot

ROUNDS = 5
SECONDS = 0.5
FILLED = ("core", "sve", "sme")
FIXED = ("sve_vls", "sme_vls", "pstate")


def guest() -> Snapshot:
    """The vCPU: every vector, row of ZA and general register holds data."""
    host = replace(kvmabi.load_host("sme-demo"), sve_vector_bits=(128, 256), sme_vector_bits=(256, 512))
    with kvmabi.open(host=host, kept_events=0, checked=False) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve", "sme"})
        vcpu.finalize()
        vcpu["svcr"] = 2
        for id in vcpu.reg_list():
            register = regid.decode(id)
            if register.family in FILLED and register.name not in FIXED:
                vcpu[id] = bytes(1 + byte % 255 for byte in range(size_of(id)))
        return kvmabi.save(vcpu)


def per_second(work: Callable[[], object]) -> float:
    """The best of some rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        count, start = 0, time.process_time()
        while (passed := time.process_time() - start) < SECONDS:
            for _ in range(100):
                work()
            count += 100
        best = max(best, count / passed)
    return best


def main() -> None:
    """Print the figures."""
    snapshot = guest()
    blob = own.write(snapshot)
    print(f"{len(snapshot.vcpus[0].registers)} registers, {len(blob):,} bytes")
    print(f"read  {per_second(lambda: opening.read_bytes(blob)):10,.0f} a second")
    print(f"write {per_second(lambda: own.write(snapshot)):10,.0f} a second")


if __name__ == "__main__":
    main()
