# SPDX-License-Identifier: MIT
"""What a script does to registers is what the architecture does, and what userspace reads afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmms import host

from guests.machines import Body, machine, once, wait
from kvmabi.guests import Cpu, GuestError

LONGEST = 15
FPSR_STREAMING = 0x0800009F
WIDE = host(sve=[128, 256, 512], sme=[256, 512])


def test_registers_are_those_that_userspace_reads() -> None:
    """x, pc, sp, system registers, V, Z, P, FFR, ZA and ZT0, each in its place."""

    def guest(cpu: Cpu) -> Iterator[None]:
        cpu.x[7], cpu.sp, cpu.pc = 7, 0x5000, 0x4000
        cpu.msr("tpidr2_el0", 22)
        cpu.msr("tpidr_el1", 23)
        cpu.msr("zcr_el1", LONGEST)
        cpu.msr("smcr_el1", LONGEST)
        cpu.z[3], cpu.p[2], cpu.ffr = b"\3" * 32, b"\2" * 4, b"\1" * 4
        cpu.smstart("za")
        cpu.za[90], cpu.zt0 = b"\x5a" * 128, b"\6" * 64
        yield

    with machine("sve", "sme") as (_vm, (vcpu,)):
        vcpu.guest = guest
        wait(vcpu)
        numbers = {name: vcpu.read(name) for name in ("x7", "sp_el1", "sp", "pc", "tpidr2_el0", "tpidr_el1", "svcr")}
        assert numbers == {"x7": 7, "sp_el1": 0x5000, "sp": 0, "pc": 0x4000} | {
            "tpidr2_el0": 22,
            "tpidr_el1": 23,
            "svcr": 2,
        }
        assert vcpu["z3"] == (b"\3" * 32).ljust(256, b"\0")
        assert vcpu["p2"] == (b"\2" * 4).ljust(32, b"\0")
        assert vcpu["ffr"] == (b"\1" * 4).ljust(32, b"\0")
        assert vcpu["za.h[90]"] == (b"\x5a" * 128).ljust(256, b"\0")
        assert vcpu["zt0"] == b"\6" * 64


def test_entering_and_leaving_streaming_mode_zeroes_the_vectors() -> None:
    """Z, P and FFR are zero, FPSR is set; ZA is untouched by SM, and starts as zeroes with ZA."""

    def body(cpu: Cpu) -> list[Any]:
        cpu.msr("zcr_el1", LONGEST)
        cpu.msr("smcr_el1", LONGEST)
        cpu.z[1], cpu.p[1], cpu.ffr = b"\1" * 32, b"\1" * 4, b"\1" * 4
        cpu.msr("fpsr", 1)
        cpu.smstart("za")
        cpu.za[0] = b"\7" * cpu.svl
        cpu.smstart("sm")
        seen = [any(cpu.z[1]), any(cpu.p[1]), cpu.mrs("fpsr"), cpu.za[0][:1], cpu.svcr]
        cpu.z[1] = b"\1" * cpu.vl
        cpu.smstop("sm")
        seen += [any(cpu.z[1]), any(cpu.ffr), cpu.za[0][:1], cpu.svcr]
        cpu.smstop()
        cpu.smstart("za")
        return [*seen, any(cpu.za[0])]

    assert once(body, "sve", "sme") == [False, False, FPSR_STREAMING, b"\7", 3, False, False, b"\7", 2, False]


def test_starting_again_changes_nothing() -> None:
    """SMSTART of what is on already zeroes nothing."""

    def body(cpu: Cpu) -> bytes:
        cpu.smstart()
        cpu.za[0] = b"\7"
        cpu.smstart()
        cpu.msr("svcr", 3)
        return cpu.za[0][:1]

    assert once(body, "sve", "sme") == b"\7"


@given(st.sampled_from(("sve", "sme")), st.integers(0, LONGEST))
def test_lengths_follow_the_control_registers(which: str, field: int) -> None:
    """The longest length of the vCPU that LEN allows, and the shortest one if none is as short."""

    def body(cpu: Cpu) -> int:
        cpu.msr("zcr_el1" if which == "sve" else "smcr_el1", field)
        if which == "sme":
            cpu.smstart("sm")
            assert cpu.vl == cpu.svl == len(cpu.za)
        return len(cpu.z[0])

    lengths = WIDE.sve_vector_bits if which == "sve" else WIDE.sme_vector_bits
    allowed = [bits for bits in lengths if bits <= 128 * (field + 1)]
    assert once(body, "sve", "sme", host=WIDE) == (max(allowed) if allowed else min(lengths)) // 8


def test_a_shorter_write_zeroes_the_rest_of_the_register() -> None:
    """Also what is beyond the present length; a change of length alone keeps it."""

    def body(cpu: Cpu) -> tuple[bytes, bytes]:
        cpu.msr("zcr_el1", LONGEST)
        cpu.z[0] = cpu.z[1] = b"\1" * 32
        cpu.msr("zcr_el1", 0)
        cpu.z[0] = b"\2" * 16
        cpu.msr("zcr_el1", LONGEST)
        return cpu.z[0], cpu.z[1]

    assert once(body, "sve") == ((b"\2" * 16).ljust(32, b"\0"), b"\1" * 32)


def test_v_is_the_low_part_of_z() -> None:
    """With SVE a write of V zeroes the rest of Z; without, V is a register of its own."""

    def body(cpu: Cpu) -> bytes:
        cpu.msr("zcr_el1", LONGEST)
        cpu.z[4] = b"\1" * 32
        cpu.v[4] = b"\2" * 16
        return cpu.z[4]

    assert once(body, "sve") == (b"\2" * 16).ljust(32, b"\0")
    assert once(lambda cpu: [cpu.v.__setitem__(4, b"\2" * 16), cpu.v[4]][1]) == b"\2" * 16


def test_control_registers_keep_the_bits_that_exist() -> None:
    """RES0 bits read as zero."""

    def body(cpu: Cpu) -> list[int]:
        for name in ("zcr_el1", "smcr_el1", "cntv_ctl_el0"):
            cpu.msr(name, (1 << 64) - 1)
        return [cpu.mrs(name) for name in ("zcr_el1", "smcr_el1", "cntv_ctl_el0")]

    zcr, smcr, timer = once(body, "sve", "sme")
    assert zcr == LONGEST
    assert smcr & 0xFFFF == LONGEST
    assert timer & ~4 == 3


WRONG: dict[str, tuple[Body, tuple[str, ...], str]] = {
    "no SME": (lambda cpu: cpu.smstart("sm"), ("sve",), "UNDEFINED: this vCPU has no SME"),
    "no SVE": (lambda cpu: cpu.z[0], (), "UNDEFINED: this vCPU has no SVE"),
    "no ZA": (lambda cpu: cpu.za[0], ("sme",), "smstart('za') first"),
    "no ZA for ZT0": (lambda cpu: cpu.zt0, ("sme",), "smstart('za') first"),
    "ZT0 without SME": (lambda cpu: cpu.zt0, (), "no SME2"),
    "no FFR": (lambda cpu: cpu.ffr, ("sme",), "FFR does not exist here"),
    "z32": (lambda cpu: cpu.z[32], ("sve",), "z[32]: numbers are 0 to 31"),
    "x31": (lambda cpu: cpu.x[31], (), "x[31]: numbers are 0 to 30"),
    "a long value": (lambda cpu: cpu.z.__setitem__(0, bytes(64)), ("sve",), "z[0] has 16 bytes now, 64 were given"),
    "no bytes": (lambda cpu: cpu.z.__setitem__(0, 5), ("sve",), "z[0] takes bytes, not 5"),
    "a wide number": (lambda cpu: cpu.x.__setitem__(0, 1 << 64), (), "x[0] takes a number of 64 bits"),
    "an unknown register": (lambda cpu: cpu.mrs("tpidr3_el0"), (), "'tpidr3_el0' is not a system register"),
    "not the guest's": (lambda cpu: cpu.mrs("za.h[0]"), ("sme",), "is not a system register of this kernel's guests"),
    "a register without its feature": (lambda cpu: cpu.mrs("tpidr2_el0"), (), "UNDEFINED: tpidr2_el0"),
    "an ID register": (lambda cpu: cpu.msr("id_aa64pfr0_el1", 0), (), "id_aa64pfr0_el1 is read-only"),
    "a counter": (lambda cpu: cpu.msr("cntvct_el0", 0), (), "cntvct_el0 is read-only"),
    "smstart of what": (lambda cpu: cpu.smstart("zz"), ("sme",), "smstart and smstop take"),
    "a mode": (lambda cpu: setattr(cpu, "pstate", 0), (), "pstate's mode cannot be changed"),
    "an index": (lambda cpu: cpu.memory[5], (), "memory[address:address + size]"),
    "no memory": (lambda cpu: cpu.memory.read(0x9000000, 4), (), "there is no memory at 0x9000000: yield Mmio"),
    "negative memory": (lambda cpu: cpu.memory.read(-4, 4), (), "are not a part of guest memory"),
    "a terabyte": (lambda cpu: cpu.memory.read(0, 1 << 40), (), "are not a part of guest memory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_guest_cannot_do_says_why(name: str) -> None:
    """The script gets a GuestError, and the vCPU is as it was."""
    body, features, text = WRONG[name]

    def wrong(cpu: Cpu) -> str:
        with pytest.raises(GuestError) as caught:
            body(cpu)
        return str(caught.value)

    assert text in once(wrong, *features)
