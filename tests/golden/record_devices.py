# SPDX-License-Identifier: MIT
"""Records what real kernels answer about devices: KVM_CREATE_DEVICE and the attributes of a vGIC, its ITS and a vCPU.

Also recorded are the ioctls of VMs and vCPUs that are not about registers: interrupts, memory slots, capabilities.

    python -m golden.record_devices IMAGE...

boots arm64 kernels in QEMU (scripts and random sequences of the steps that kvmabi.steps.grammar describes) and
packs STEP, a tab and the answer, one per line, as PROFILE.steps into devices.tar.xz, together with the host's profile.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from golden import packs
from kvmabi import regid
from kvmabi.capture import capture, origin
from kvmabi.fuzz import devices
from kvmabi.steps.backends.vm import VmBackend

CALLS = "calls.txt"
SEED, RANDOM_SEQUENCES, LENGTH = 2, 500, 30
SANE_SHARE = 0.5
DIST, REDIST, INIT = "o d0 0 2 8000000", "o d0 0 3 80a0000", "o d0 4 0 0"
SANE = ["D 7 0", "I 0 5 8", "I 1 5 8", DIST, REDIST, INIT, "o 0 0 0 17", "o 0 0 1 0"]
"""The steps that many random sequences begin with, in any order."""
GIC = "; ".join(f"G 0 {regid.parse(name):x}" for name in ("id_aa64pfr0_el1", "id_pfr1_el1"))
"""The registers that show a GIC."""
READY = f"D 7 0; {DIST}; {REDIST}; {INIT}"


def region(frames: int, base: int, flags: int = 0, index: int = 0) -> str:
    """A set of KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION."""
    return f"o d0 0 5 {frames << 52 | base | flags << 12 | index:x}"


SCRIPTS = (
    "N 0; D 7 0; D 7 0; D 7 1; D 5 0; D 5 1; D 8 0; D 8 1; D 8 0; D 99 0; D 99 1; D 7 2; D 6 0; D 9 0",
    "N 1; D 7 0; V 1; D 7 0",
    "N 0; D 7 0; q d0 0 2 0; q d0 0 3 0; q d0 0 4 0; q d0 3 0 0; q d0 4 0 0; q d0 0 2 -; q d0 0 9 0; o d0 0 9 0",
    f"N 0; D 7 0; o d0 0 2 8000001; o d0 0 2 -; o d0 0 2 10000000000; o d0 0 2 ffffff0000; {DIST}; q d0 0 2 0",
    "N 0; D 7 0; o d0 0 3 8010000; o d0 0 3 8000000; q d0 0 3 0; o d0 0 2 ffffffffffff0000",
    "N 0; D 7 0; o d0 3 0 20; o d0 3 0 3f; o d0 3 0 41; o d0 3 0 420; o d0 3 0 400; q d0 3 0 0; o d0 3 0 40; "
    f"o d0 3 1 40; q d0 3 1 0; {INIT}; q d0 3 0 0; o d0 4 9 0; o d0 3 0 -; q d0 3 0 -; o d0 4 0 -",
    f"N 0; D 7 0; {INIT}; o d0 3 0 40; q d0 3 0 0; V 0; {DIST}; {REDIST}; {INIT}",
    f"N 2; D 7 0; {INIT}; V 2; I 0 5 0; R 0; {DIST}; R 0; G 0 6030000000100000",
    f"N 1; I 0 5 0; {READY}; R 0; o d0 0 2 9000000; {INIT}; V 1; D 8 0; D 8 0; o d0 3 0 40; R 0",
    f"N 1; I 0 5 0; D 7 0; {DIST}; {REDIST}; R 0; q d0 3 0 0",
    f"N 1; I 0 5 8; {GIC}; R 0; {GIC}; D 7 0; {GIC}; {DIST}; {REDIST}; {INIT}; o 0 0 0 17; o 0 0 1 0; R 0; {GIC}",
    f"N 1; D 7 0; I 0 5 0; {GIC}; {DIST}; {REDIST}; {INIT}; R 0; {GIC}",
    f"N 1; I 0 5 0; {GIC}; R 0; {GIC}; D 7 0; {GIC}",
    "N 1; I 0 5 0; R 0; D 7 0; D 7 1; D 8 0",
    f"N 1; I 0 5 0; D 7 0; {DIST}; q d0 0 5 0; {region(1, 0x80A0000)}; q d0 0 5 0; q d0 0 3 0; {REDIST}; "
    f"{region(1, 0x9000000)}; {region(1, 0x9000000, 0, 2)}; {region(1, 0x9000000, 0, 1)}; q d0 0 5 1; "
    f"{region(1, 0x9100000, 1, 2)}; {region(1, 0x80B0000, 0, 2)}; {region(1, 0x80C0000, 0, 2)}; "
    f"{region(2, 0xFFFFFF0000, 0, 3)}; {region(1, 0x10000000000, 0, 3)}; {region(0, 0x9200000, 0, 3)}; {INIT}; "
    f"{region(1, 0xA000000, 0, 3)}; R 0; q d0 0 5 -",
    f"N 1; D 7 0; {REDIST}; {region(1, 0x9000000)}; q d0 0 5 0; o d0 0 3 9000000",
    f"N 3; I 0 5 0; D 7 0; {DIST}; {region(2, 0x80A0000)}; {INIT}; R 0",
    f"N 3; I 0 5 0; D 7 0; {DIST}; {region(2, 0x80A0000)}; {INIT}; {region(1, 0x9000000, 0, 1)}; R 0",
    f"N 1; I 0 5 0; D 7 0; {DIST}; {region(1, 0x8000000)}; {region(1, 0x8010000)}",
    f"N 1; I 0 5 0; D 7 0; {DIST}; o d0 0 3 8000000; q d0 0 3 0",
    f"N 1; I 0 5 0; D 7 0; {REDIST}; o d0 0 2 80a0000; {INIT}; R 0; q d0 0 2 0",
    f"N 2; I 0 5 0; D 7 0; {DIST}; {REDIST}; V 2; {INIT}; R 0; I 1 5 0; R 1",
    "N 1; D 7 0; o d0 0 3 ffffff0000; V 1; V 2",
    "N 2; D 7 0; o d0 0 3 ffffff0000; o d0 0 3 fffffe0000; o d0 0 3 fffffc0000",
    "N 2; I 0 5 0; D 7 0; o d0 0 2 80b0000; o d0 0 3 80a0000; o d0 0 3 8090000; o d0 0 3 8070000; o d0 0 3 80c0000",
    f"N 1; D 7 0; o d0 4 3 0; {DIST}; {REDIST}; o d0 4 3 0; {INIT}; o d0 4 3 0; q d0 4 3 0; I 0 5 0; R 0; o d0 4 3 -",
    "N 1; D 7 0; o d0 9 0 19; q d0 9 0 0; o d0 9 0 1f; o d0 9 0 10; o d0 9 0 f; o d0 9 0 20; o d0 9 0 -; q d0 9 0 -; "
    f"{INIT}; o d0 9 0 1a",
    "N 1; D 8 0; h d0 0 4 0; h d0 0 2 0; h d0 4 0 0; h d0 4 1 0; h d0 4 2 0; h d0 4 4 0; o d0 0 4 8080001; "
    "o d0 0 4 10000000000; o d0 0 4 ffffff0000; o d0 0 4 8080000; o d0 0 4 8090000; o d0 0 4 -; q d0 0 4 0; "
    "q d0 0 4 -; q d0 0 2 0; o d0 0 2 8000000; o d0 4 0 0; o d0 4 0 -; o d0 4 1 0; o d0 4 2 0; o d0 4 4 0; q d0 4 0 0; "
    "o d0 3 0 40",
    f"N 1; D 7 0; D 8 0; o d1 4 0 0; o d1 0 4 8080000; {DIST}; {REDIST}; {INIT}; o d1 4 0 0; I 0 5 0; R 0; D 8 0",
    "N 1; o 0 0 1 0; o 0 1 0 1b; q 0 1 0 0; q 0 0 0 0; o 0 0 0 0; o 0 3 0 0; q 0 3 0 0; o 0 2 0 -; q 0 2 0 -; "
    "o 0 2 1 0; q 0 2 1 0; h 0 0 0 0; h 0 1 0 0; h 0 1 2 0; h 0 2 0 0",
    "N 1; I 0 5 8; h 0 0 0 0; h 0 0 1 0; h 0 0 2 0; h 0 0 3 0; h 0 0 4 0; h 0 0 5 0; o 0 0 1 0; o 0 0 0 17; q 0 0 0 0; "
    "D 7 0; o 0 0 0 17; o 0 0 1 0; R 0",
    f"N 1; D 7 0; I 0 5 8; o 0 0 0 17; o 0 0 0 17; o 0 0 1 0; q 0 0 0 0; {DIST}; {REDIST}; {INIT}; o 0 0 1 0; "
    "o 0 0 1 0; R 0; I 0 5 8; R 0; o 0 0 1 0",
    "N 1; D 7 0; I 0 5 8; o 0 0 0 f; o 0 0 0 20; o 0 0 0 3ff; o 0 0 0 -; q 0 0 0 0; o 0 0 1 0",
    "N 1; I 0 5 8; o 0 0 0 17; o 0 0 0 -; D 7 0; q 0 0 0 0; q 0 0 0 -; o 0 0 1 -",
    f"N 1; I 0 5 8; {READY}; o 0 0 1 0; R 0; o 0 0 0 17; o 0 0 1 0; R 0; o 0 0 2 0; q 0 0 1 0; q 0 0 2 0",
    "N 2; D 7 0; I 0 5 8; I 1 5 8; o 0 0 0 17; o 1 0 0 18; o 1 0 0 17; o 1 0 0 20",
    "N 2; D 7 0; I 0 5 8; I 1 5 8; o 0 0 0 20; o 1 0 0 20; o 1 0 0 21",
    "N 1; I 0 5 8; o 0 0 4 -; o 0 0 4 ff; o 0 0 4 2; o 0 0 4 0; q 0 0 4 0; o 0 0 1 0; o 0 0 4 2; R 0; o 0 0 4 1",
    "N 1; I 0 5 8; o 0 0 2 10000; o 0 0 2 100010000; o 0 0 2 1ffff; o 0 0 2 2ffff; o 0 0 2 200010000; o 0 0 2 -; "
    "o 0 0 3 7; q 0 0 3 0; o 0 0 9 0; R 0; o 0 0 1 -; R 0; o 0 0 2 10000",
    "N 1; I 0 5 0; o 0 0 1 0; o 0 0 0 17; q 0 0 0 0; o 0 0 2 10000; h 0 0 2 0; h 0 0 4 0; o 0 0 4 2",
    "N 1; I 0 5 0; D 7 0; q 0 1 0 0; o 0 1 0 1c; o 0 1 1 1d; o 0 1 1 f; o 0 1 0 20; o 0 1 0 -; q 0 1 0 0; q 0 1 1 0; "
    f"q 0 1 0 -; o 0 1 4 1c; o 0 1 1 1c; {DIST}; {REDIST}; {INIT}; R 0; o 0 1 0 1b; R 0; o 0 1 0 1b; q 0 1 9 0",
    f"N 2; I 0 5 0; I 1 5 0; D 7 0; o 0 1 0 1d; q 1 1 0 0; {DIST}; {REDIST}; {INIT}; R 0; o 1 1 0 1c; o 1 1 0 -",
    f"N 1; I 0 5 0; D 7 0; o 0 1 0 1e; {DIST}; {REDIST}; {INIT}; R 0",
    "N 1; I 0 5 0; q 0 2 0 0; o 0 2 0 40000000; o 0 2 0 40000001",
    "N 1; D 7 0; A d0 ae00; X d0 ae41 0; X d0 4018aee1 10; X v c00caee0 10; X v ae60 0; X v ae60 1; A v ae60; "
    "h s 0 0 0",
    f"N 1; I 0 5 8; o 0 0 1 0; {READY}; R 0; R 0",
    f"N 1; D 7 0; I 0 5 8; {DIST}; {REDIST}; {INIT}; R 0; o 0 1 0 1d; q 0 1 0 0; o 0 0 0 17; R 0; o 0 0 1 0; R 0",
    f"N 1; D 7 0; I 0 5 8; {DIST}; {REDIST}; {INIT}; o 0 0 0 1f4; o 0 0 1 0; R 0; o 0 0 0 17",
    f"N 1; D 7 0; I 0 5 8; {DIST}; {REDIST}; o d0 3 0 3e0; {INIT}; o 0 0 0 1f4; o 0 0 1 0; R 0",
    f"N 1; D 7 0; I 0 5 8; {DIST}; {REDIST}; {INIT}; o 0 0 0 1b; o 0 0 1 0; R 0; o 0 1 0 1c; R 0",
    f"N 1; D 7 0; I 0 5 8; {DIST}; {REDIST}; {INIT}; R 0; o 0 0 0 1b; o 0 0 1 0; R 0; o 0 0 1 0",
    f"N 2; D 7 0; I 0 5 8; I 1 5 8; {DIST}; {REDIST}; {INIT}; o 0 0 0 40; o 1 0 0 100; o 0 0 1 0; o 1 0 1 0; R 0; R 1",
    f"N 2; D 7 0; I 0 5 8; I 1 5 8; {DIST}; {REDIST}; {INIT}; R 0; o 0 1 0 1d; o 1 1 0 1d",
    f"N 0; D 7 0; {DIST}; o d0 0 3 fffffe0000; V 0; V 1; {INIT}; I 0 5 0; R 0; G 0 6030000000100000",
    f"N 1; I 0 5 0; D 7 0; {DIST}; {REDIST}; {region(1, 0x80C0000, 0, 1)}; V 1; {INIT}; R 0; G 0 6030000000100000",
    f"N 3; I 0 5 0; D 7 0; {DIST}; {REDIST}; {region(1, 0x80C0000, 0, 1)}; {INIT}; R 0",
    f"N 0; D 7 0; {DIST}; {region(1, 0x8000000)}; V 0; {region(1, 0x8000000, 0, 1)}; V 1; V 0",
    f"N 0; D 7 0; {DIST}; o d0 0 3 7fe0000; V 0; V 1; V 2; {INIT}; I 0 5 0; R 0",
    f"N 0; D 7 0; o d0 0 3 7fc0000; V 0; V 1; V 2; V 3; {DIST}; {INIT}; I 0 5 0; R 0",
    f"N 2; D 7 0; {DIST}; {region(4, 0x7FC0000)}; q d0 0 5 0",
    "N 1; X v ae03 83; D 7 0; X v ae03 83; D 8 0; X v ae03 83; X s ae03 83",
    "N 1; D 8 0; o d0 4 9 0; o d0 4 3 0; h d0 4 9 0; q d0 4 9 0",
)
"""What a VMM and its mistakes do, one sequence a line."""


def random_sequence(chance: Random) -> list[str]:
    """A VM with up to three vCPUs, and whatever comes to mind."""
    steps = [f"N {chance.randrange(4)}"]
    if chance.random() < SANE_SHARE:
        steps += chance.sample(SANE, chance.randrange(1, len(SANE) + 1))
    for _ in range(chance.randrange(5, LENGTH)):
        steps.append(chance.choices((devices.create, devices.attribute, _other), (1, 15, 3))[0](chance))
    return steps


def _other(chance: Random) -> str:
    vcpu = chance.choice(devices.VCPUS)
    return chance.choice((f"I {vcpu} 5 {chance.choice((0, 8))}", f"V {chance.randrange(4)}", f"R {vcpu}"))


def sequences() -> Iterator[list[str]]:
    """The scripts, then the random ones, then the ioctls of VMs and vCPUs, which the pack has as a list of steps."""
    for script in SCRIPTS:
        yield script.split("; ")
    chance = Random(SEED)
    for _ in range(RANDOM_SEQUENCES):
        yield random_sequence(chance)
    yield Path(packs.path("devices", CALLS)).read_text("ascii").splitlines()


def main(images: list[str]) -> None:
    """Record with every image."""
    members = [(CALLS, Path(packs.path("devices", CALLS)).read_bytes())]
    for image in images:
        backend = VmBackend(image)
        lines = []
        for steps in sequences():
            lines += [f"{step}\t{answer}\n" for step, answer in zip(steps, backend.answers(steps), strict=True)]
        members.append((f"{backend.kernel.name}.steps", "".join(lines).encode()))
        host = capture(backend, backend.kernel.name, origin(backend))
        members.append((f"{backend.kernel.name}.json", json.dumps(host).encode()))
        backend.close()
    packs.pack(packs.HERE / "devices.tar.xz", members)


if __name__ == "__main__":
    main(sys.argv[1:])
