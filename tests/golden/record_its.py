# SPDX-License-Identifier: MIT
"""Records what real kernels answer about an ITS and the GIC's CPU interfaces.

    python -m golden.record_its IMAGE...

boots arm64 kernels in QEMU (the scripts of its_register_scripts and its_scripts, and random sequences) and packs STEP,
a tab and the answer, one per line, as PROFILE.steps into its.tar.xz. The hosts are those of devices.tar.xz
(record_devices.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from random import Random

from golden import its_register_scripts as registers
from golden import its_scripts as tables
from golden import packs
from kvmabi.fuzz import its
from kvmabi.steps.backends.vm import VmBackend

SEED, RANDOM_SEQUENCES = 5, 100


def sequences(*, careful: bool) -> Iterator[list[str]]:
    """The scripts, then random sequences with one to three vCPUs."""
    yield from registers.registers()
    yield from registers.cpu_interfaces()
    yield from tables.tables()
    yield from tables.broken_tables()
    if not careful:
        yield from tables.unmapping()
    for number in range(RANDOM_SEQUENCES):
        chance = Random(f"{SEED}.{number}")
        vcpus = chance.randrange(1, 4)
        inits = [f"I {vcpu} 5 0" for vcpu in range(vcpus)]
        yield [f"N {vcpus}", *inits, *its.sequence(chance, vcpus, careful=careful)]


def main(images: list[str]) -> None:
    """Record with every image."""
    members = []
    for image in images:
        backend = VmBackend(image)
        lines = []
        for steps in sequences(careful=not backend.kernel.switches.its_saves_unmapped):
            lines += [f"{step}\t{answer}\n" for step, answer in zip(steps, backend.answers(steps), strict=True)]
        members.append((f"{backend.kernel.name}.steps", "".join(lines).encode()))
        backend.close()
    packs.pack(packs.HERE / "its.tar.xz", members)


if __name__ == "__main__":
    main(sys.argv[1:])
