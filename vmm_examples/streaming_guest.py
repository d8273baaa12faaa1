# SPDX-License-Identifier: MIT
"""The guest of streaming_guest.c: it fills its vectors and ZA, rings, and counts later what is left of them."""

from kvmabi.guests import Cpu, Mmio

DOORBELL = 0x9000000
RUNG = 1 << 32
"""What the guest leaves in TPIDR_EL1, a register that every restore gets right."""


def guest(cpu: Cpu):
    """A guest's place in its script is not part of a vCPU's state: what it must know later is in registers."""
    if cpu.mrs("tpidr_el1") != RUNG:
        cpu.msr("smcr_el1", 15)  # the longest streaming vectors that the vCPU has
        cpu.smstart()
        for n in range(32):
            cpu.z[n] = bytes([n + 1]) * cpu.vl
        for n in range(cpu.svl):
            cpu.za[n] = bytes([n ^ 0x5A]) * cpu.svl
        cpu.msr("tpidr_el1", RUNG)
        yield Mmio(DOORBELL, 1, 1)
    found = sum(any(z) for z in cpu.z)
    yield Mmio(DOORBELL, 1, found)
