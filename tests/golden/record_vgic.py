# SPDX-License-Identifier: MIT
"""Records what real kernels answer about the registers of a vGICv3: its frames, its lines, and what depends on them.

    python -m golden.record_vgic IMAGE...

boots arm64 kernels in QEMU and packs STEP, a tab and the answer, one per line, as PROFILE.steps into vgic.tar.xz; the
hosts are those of devices.tar.xz (record_devices.py). The steps are scripts of a VMM and its mistakes, sweeps over the
frames (test and get of every word near a register, sets of every register) and random sequences.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from random import Random

from golden import packs
from kvmabi import gicnames, regid
from kvmabi.fuzz import gicregs
from kvmabi.gicnames import DIST, REDIST, WORD_BYTES
from kvmabi.steps.backends.vm import VmBackend

SEED, RANDOM_SEQUENCES, LENGTH = 1, 250, (20, 80)
MPIDR, CNTV_CTL = (f"{regid.parse(name):x}" for name in ("mpidr_el1", "cntv_ctl_el0"))
PLACES = "o d0 0 2 8000000; o d0 0 3 80a0000"
ONE = f"N 1; I 0 5 0; D 7 0; {PLACES}"
TWO = f"N 2; I 0 5 0; I 1 5 0; D 7 0; {PLACES}"
INIT = "o d0 4 0 0"
ALL, PMU = "ffffffff", "I 0 5 8"
SET_PRIVATE = f"o d0 5 10200 {ALL}; o d0 5 10300 {ALL}; o d0 7 0 {ALL}"
CLEAR_ACTIVE = f"o d0 5 10380 {ALL}"
GET_PRIVATE = "q d0 5 10200 0; q d0 5 10300 0; q d0 7 0 0"
TYPERS = "; ".join(f"q d0 5 {vcpu << 32 | 8:x} 0; q d0 5 {vcpu << 32 | 12:x} 0" for vcpu in range(4))
LAST = f"{INIT}; {TYPERS}"
NEAR_BYTES = 0x40
"""How far around a register a sweep looks at every word."""
VALUES = (ALL, "0", "5a5a5a5a", "ffffffff12345678")


def line(irq: int, level: int, kind: int = 1, vcpu: int = 0) -> str:
    """KVM_IRQ_LINE."""
    return f"Y v 4008ae61 {(kind << 24 | vcpu << 16 | irq).to_bytes(4, 'little').hex()}{level:02x}000000"


def region(frames: int, base: int, index: int) -> str:
    """A set of KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION."""
    return f"o d0 0 5 {frames << 52 | base | index:x}"


SCRIPTS = (
    "N 0; D 7 0; q d0 1 8 0; h d0 1 8 0; q d0 1 0 0; h d0 5 0 0; q d0 5 0 0; q d0 7 0 0; h d0 7 0 0; q d0 1 0 -; "
    "o d0 1 0 -; o d0 5 0 -; h d0 1 0 -; V 0; h d0 1 8 0; h d0 5 0 0; q d0 1 8 0; I 0 5 0; q d0 1 8 0",
    f"{ONE}; {INIT}; "
    + "; ".join(
        f"o d0 1 8 {id}; q d0 1 8 0; q d0 5 0 0"
        for id in (
            "4b00043b",
            "4b00143b",
            "4b00243b",
            "4b00343b",
            "4b00443b",
            "5b00243b",
            "4b00243a",
            "4b01343b",
            "4b00243b",
        )
    ),
    f"{TWO}; q d0 1 8 0; o d0 1 8 4b00143b; o d0 1 8 4b00243b; q d0 1 8 0; o d0 1 8 5b00343b; q d0 1 c 0; o d0 1 c 0; "
    "o d0 1 c 1; o d0 1 c ffffffff; o d0 1 8 -; q d0 1 8 -; o d0 1 c -; q d0 1 9 0; o d0 1 0 0; "
    "o d0 1 0 -; q d0 1 0 -; "
    f"o d0 5 0 0; q d0 5 4 0; o d0 7 0 0; q d0 7 0 0; o d0 7 0 -; q d0 7 0 -; {INIT}; q d0 1 8 0; o d0 1 c 1; {INIT}; "
    "o d0 1 204 ff; o d0 3 0 40; q d0 1 204 0",
    f"{TWO}; {INIT}; o d0 1 0 -; q d0 1 0 -; o d0 1 14 -; q d0 1 14 -; o d0 5 200000000 -; q d0 5 200000000 -; "
    "o d0 7 0 -; q d0 7 0 -; o d0 7 1 -; q d0 7 1 -; q d0 7 400 -; o d0 7 400 -; o d0 1 3 -; h d0 1 0 -; o d0 1 8 -",
    f"{TWO}; {INIT}; h d0 1 1 0; h d0 1 2 0; h d0 1 401 0; q d0 1 1 {ALL}{ALL}; q d0 1 2 ff; o d0 1 1 2; q d0 1 0 0; "
    "o d0 1 421 ff; q d0 1 420 ff; q d0 1 9 ff; o d0 1 9 0; h d0 1 10000 0; q d0 1 10100 ff; h d0 1 fffffffc 0; "
    "q d0 1 fffffffc 0; h d0 5 20000 0; q d0 5 20000 ff; h d0 5 2 0; q d0 5 72 ff; q d0 5 fffffffc ff; h d0 5 9 0",
    f"{TWO}; {INIT}; h d0 1 100000000 0; q d0 1 500000008 0; h d0 5 100000000 0; h d0 5 200000000 0; "
    f"q d0 5 200000000 0; "
    "o d0 5 200000000 0; h d0 5 10000000000 0; q d0 5 10000000000 0; q d0 7 100000000 0; q d0 7 200000000 0; "
    "h d0 7 200000000 0; h d0 7 400 0; h d0 7 1 0; h d0 7 200000400 0; q d0 7 400 0; q d0 7 1 0; q d0 7 3e0 ff; "
    "o d0 7 3e0 ff; o d0 7 21 0; o d0 7 400 0; q d0 7 ffff0000 0",
    f"N 2; D 7 0; {PLACES}; h d0 5 0 0; h d0 5 100000000 0; {INIT}; q d0 5 8 0; q d0 5 100000008 0; I 1 5 0; {TYPERS}; "
    f"o d0 5 10100 {ALL}; I 0 5 0; q d0 5 10100 0; q d0 5 100010100 0; S 0 {MPIDR} 05*1.00*7.; q d0 5 8 0; "
    f"q d0 5 500000008 0; q d0 5 50000000c 0; S 0 {MPIDR} 01*1.00*7.; {TYPERS}; S 0 {MPIDR} 0302010904000000; "
    "q d0 5 401020300000008 0; q d0 5 40102030000000c 0; q d0 5 901020300000008 0; I 0 5 0; q d0 5 8 0",
    f"{TWO}; {INIT}; R 0; S 1 {MPIDR} 02*1.00*7.; q d0 5 20000000c 0; q d0 5 10000000c 0; S 0 {MPIDR} 02*1.00*7.; "
    "q d0 5 200000008 0; q d0 5 8 0",
    f"N 3; I 1 5 0; D 7 0; {PLACES}; {INIT}; o d0 5 10200 4; R 1; q d0 5 10200 0; q d0 5 8 0; I 0 5 0; q d0 5 10200 0; "
    "I 2 5 0; q d0 5 10200 0; q d0 5 200000008 0",
    f"N 2; I 0 5 8; D 7 0; {PLACES}; {INIT}; R 0; q d0 5 8 0; I 1 5 8; q d0 5 8 0",
    f"{TWO}; {INIT}; o d0 7 0 {ALL}; q d0 7 0 0; q d0 7 100000000 0; o d0 7 20 {ALL}; q d0 7 20 0; o d0 1 c08 0; "
    "q d0 7 20 0; q d0 1 204 0; q d0 5 10200 0; o d0 1 c08 2; q d0 7 20 0; o d0 7 20 0; q d0 7 20 0; "
    "o d0 7 100000020 5; "
    f"q d0 7 20 0; o d0 7 100000000 {ALL}; q d0 7 0 0; q d0 7 100000000 0; o d0 7 0 0; q d0 7 100000000 0",
    f"{TWO}; {line(40, 1)}; {INIT}; {line(40, 1)}; q d0 1 204 0; q d0 7 20 0; {line(40, 0)}; "
    f"q d0 1 204 0; o d0 1 c08 0; "
    f"{line(40, 1)}; {line(41, 1)}; q d0 1 204 0; q d0 7 20 0; {line(40, 0)}; q d0 7 20 0; o d0 1 204 0; q d0 1 204 0; "
    f"{line(17, 1, 2, 1)}; q d0 7 100000000 0; q d0 5 100010200 0; q d0 7 0 0; {line(27, 1, 2)}; q d0 7 0 0; R 0; "
    f"q d0 7 0 0; {line(27, 1, 2)}; {line(30, 1, 2)}; {line(26, 7, 2)}; q d0 7 0 0; {line(287, 1)}; {line(288, 1)}",
    f"{ONE}; {INIT}; {SET_PRIVATE}; R 0; {GET_PRIVATE}; {SET_PRIVATE}; {GET_PRIVATE}; {CLEAR_ACTIVE}; {GET_PRIVATE}; "
    f"R 0; {GET_PRIVATE}; I 0 5 0; {GET_PRIVATE}; {SET_PRIVATE}; {GET_PRIVATE}; {CLEAR_ACTIVE}; {GET_PRIVATE}",
    f"{ONE}; {INIT}; R 0; {SET_PRIVATE}; {GET_PRIVATE}; R 0; {GET_PRIVATE}; I 0 5 1; I 0 5 0; {GET_PRIVATE}",
    f"{ONE}; {INIT}; o 0 1 0 14; {SET_PRIVATE}; I 0 5 0; {GET_PRIVATE}; R 0; {GET_PRIVATE}; I 0 5 0; {GET_PRIVATE}",
    f"{ONE}; {INIT}; S 0 {CNTV_CTL} 01*1.00*7.; q d0 7 0 0; R 0; q d0 7 0 0; S 0 {CNTV_CTL} 00*8.; q d0 7 0 0; R 0; "
    f"q d0 7 0 0; S 0 {CNTV_CTL} 03*1.00*7.; R 0; q d0 7 0 0; S 0 {CNTV_CTL} 01*1.00*7.; R 0; I 0 5 0; q d0 7 0 0",
    f"N 1; {PMU}; D 7 0; {PLACES}; {INIT}; {SET_PRIVATE}; R 0; {GET_PRIVATE}; o 0 0 0 17; o 0 0 1 0; {SET_PRIVATE}; "
    f"R 0; {GET_PRIVATE}; {line(23, 0, 2)}; {line(22, 0, 2)}; {GET_PRIVATE}",
    f"N 1; {PMU}; D 7 0; {PLACES}; {INIT}; o 0 0 0 28; o 0 0 1 0; o d0 1 c08 0; {line(40, 1)}; "
    f"{line(41, 1)}; q d0 7 20 0",
    *(
        f"N 4; I 0 5 0; I 1 5 0; I 2 5 0; I 3 5 0; D 7 0; o d0 0 2 8000000; {regions}; {LAST}; R 0; {TYPERS}"
        for regions in (
            "o d0 0 3 80a0000",
            region(4, 0x80A0000, 0),
            region(8, 0x80A0000, 0),
            f"{region(2, 0x80A0000, 0)}; {region(2, 0x80E0000, 1)}",
            f"{region(2, 0x80A0000, 0)}; {region(2, 0x9000000, 1)}",
            f"{region(2, 0x9000000, 0)}; {region(2, 0x8FC0000, 1)}",
            f"{region(2, 0x80A0000, 0)}; {region(1, 0x80E0000, 1)}; {region(4, 0x8100000, 2)}",
            f"{region(4, 0x80A0000, 0)}; {region(4, 0x8120000, 1)}",
            region(3, 0x80A0000, 0),
        )
    ),
    f"N 2; D 7 0; {PLACES}; V 2; I 2 5 0; I 1 5 0; I 0 5 0; {LAST}",
    f"N 1; D 7 0; {PLACES}; V 5; V 17; V 300; I 1 5 0; I 2 5 0; I 3 5 0; {INIT}; q d0 5 500000008 0; "
    "q d0 5 10100000008 0; q d0 5 1010000000c 0; q d0 5 120c00000008 0; q d0 5 120c0000000c 0",
    f"N 1; I 0 5 0; {INIT}; D 7 0; {INIT}; {TYPERS}",
    f"{TWO}; {INIT}; q d0 1 4 0; q d0 5 8 0; q d0 5 70 0; o d0 5 0 1; q d0 5 0 0; o d0 5 70 ff; D 8 0; q d0 1 4 0; "
    "q d0 5 8 0; q d0 5 70 0; o d0 5 70 123; o d0 5 74 ff; q d0 5 100000070 0; o d0 5 0 ff; "
    "q d0 5 0 0; q d0 5 100000000 0; o d0 5 70 456; q d0 5 70 0; o d0 5 100000070 456; q d0 5 70 0; o d0 5 78 456; "
    "q d0 5 78 0; o d0 5 100000078 456; q d0 5 100000078 0; D 8 0; q d0 5 70 0; "
    "o d0 1 8 4b00243b; q d0 5 0 0; o d0 5 0 2; q d0 5 0 0; o d0 5 70 789; "
    "q d0 5 70 0; I 0 5 0; q d0 5 70 0; o d0 4 3 0",
    f"N 1; I 0 5 0; D 8 0; D 7 0; o d1 0 2 8000000; o d1 4 0 0; {INIT.replace('d0', 'd1')}; q d1 1 4 0; q d1 5 8 0; "
    "q d1 5 70 0; h d0 1 0 0; q d0 5 8 0",
    f"N 1; I 0 5 0; D 8 0; D 7 0; D 8 0; o d1 4 0 0; q d1 5 70 0; "
    f"{'; '.join(f'o d1 5 70 {n:x}; q d1 5 70 0' for n in range(0x80, 0x1000, 0x80))}; "
    f"{'; '.join(f'o d1 5 7c {n:x}; q d1 5 7c 0' for n in (0x1000000, 0x2000000, 0x7000000, 0x40000000, 0x80000000))}",
)
"""What a VMM and its mistakes do, one sequence a line."""
CONFIGURATIONS = ((1, 0x40, ""), (2, 0, "D 8 0"), (3, 0x3E0, ""))
"""vCPUs, interrupts (0: not set), and what comes before the initialisation."""


def set_up(vcpus: int, irqs: int, before: str) -> list[str]:
    """A vGIC that is not initialised."""
    inits = [f"I {vcpu} 5 0" for vcpu in range(vcpus)]
    own = [f"o d0 3 0 {irqs:x}"] if irqs else []
    return [f"N {vcpus}", *inits, "D 7 0", *PLACES.split("; "), *own, *([before] if before else [])]


def near(group: int) -> list[int]:
    """The offsets of the words of registers, a sample of the long ranges, and of the words around registers."""
    offsets: set[int] = set()
    for one in gicnames.FRAMES[group]:
        whole = range(one.offset, one.end, WORD_BYTES)
        offsets.update(whole if len(whole) <= NEAR_BYTES else [*whole[:NEAR_BYTES:3], *whole[-NEAR_BYTES::3]])
        offsets.update(range(max(0, one.offset - NEAR_BYTES), one.offset, WORD_BYTES))
        offsets.update(range(one.end, one.end + NEAR_BYTES, WORD_BYTES))
    return sorted(offsets)


def sweeps() -> Iterator[list[str]]:
    """Tests and gets of words near registers, before and after the initialisation, and sets of registers."""
    for number, (vcpus, irqs, before) in enumerate(CONFIGURATIONS):
        steps = set_up(vcpus, irqs, before)
        for group in (DIST, REDIST):
            steps += [f"h d0 {group} {offset:x} 0" for offset in near(group)]
        steps.append(INIT)
        for group in (DIST, REDIST):
            for offset in near(group):
                steps += [f"h d0 {group} {offset:x} 0", f"q d0 {group} {offset:x} {ALL}{ALL}"]
        yield steps
        steps = [*set_up(vcpus, irqs, before), INIT]
        for group, affinity in ((DIST, 0), (REDIST, 0), (REDIST, vcpus - 1)):
            for offset in (offset for offset in gicnames.places(group) if offset in near(group)[number::3]):
                attr = f"{group} {affinity << 32 | offset:x}"
                for value in VALUES:
                    steps += [f"o d0 {attr} {value}", f"q d0 {attr} 0"]
        yield steps


def random_sequence(chance: Random) -> list[str]:
    """A VM with a vGIC whose registers are accessed, and what a VMM does in between."""
    vcpus = chance.choice((1, 2, 2, 3, 4))
    steps = [
        f"N {vcpus}",
        *(f"I {vcpu} 5 {chance.choice((0, 0, 0, 8))}" for vcpu in range(vcpus) if chance.random() < 0.9),
    ]
    steps += gicregs.begin(chance, vcpus)
    for _ in range(chance.randint(*LENGTH)):
        vcpu = chance.randrange(vcpus)
        other = (
            f"R {vcpu}",
            f"R {vcpu}",
            f"S {vcpu} {MPIDR} {chance.choice((0, 1, 2, 5)):02x}00*7.",
            f"S {vcpu} {CNTV_CTL} {chance.choice((0, 1, 1, 3)):02x}00*7.",
            f"I {vcpu} 5 {chance.choice((0, 8))}",
            f"V {chance.randrange(5)}",
        )
        steps.append(chance.choice(other) if chance.random() < 0.06 else gicregs.step(chance))
    return steps


def sequences() -> Iterator[list[str]]:
    """The scripts, the sweeps, then the random ones."""
    for script in SCRIPTS:
        yield script.split("; ")
    yield from sweeps()
    chance = Random(SEED)
    for _ in range(RANDOM_SEQUENCES):
        yield random_sequence(chance)


def main(images: list[str]) -> None:
    """Record with every image."""
    members = []
    for image in images:
        backend = VmBackend(image)
        lines = []
        for steps in sequences():
            lines += [f"{step}\t{answer}\n" for step, answer in zip(steps, backend.answers(steps), strict=True)]
        members.append((f"{backend.kernel.name}.steps", "".join(lines).encode()))
        backend.close()
    packs.pack(packs.HERE / "vgic.tar.xz", members)


if __name__ == "__main__":
    main(sys.argv[1:])
