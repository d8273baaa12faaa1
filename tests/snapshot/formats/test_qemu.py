# SPDX-License-Identifier: MIT
"""QEMU's streams: every register of every sample, and each rule by which the section of a vCPU becomes registers."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path

import pytest

from kvmabi import regid, uapi
from kvmabi.model.row import size_of
from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import qemu_cpu, qemu_devices
from kvmabi.snapshot.formats.qemu_cpu_layout import FPCR_FPSR, HEAD, SERROR, SUBSECTIONS, SVE, TAIL, VFP
from kvmabi.snapshot.snapshot import Fact, Origin, Problem, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob
from snapshot import qemu_samples as samples
from snapshot.qemu_samples import ALL_MODES, KVM, MAPPED, UNDESCRIBED, Pipe, read, sample, truth, without_ram

EL1H, EL1T, EL0T, EL2H, EL3H = 0x3C5, 0x3C4, 0x3C0, 0x3C9, 0x3CD
VFP_BYTES = SUBSECTIONS[VFP][1].size_bytes


@cache
def whole(name: str, kind: type[io.BytesIO]) -> Snapshot:
    """A sample, read."""
    return read(sample(name), kind)


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("name", samples.names())
def test_every_register_is_what_the_guest_had(name: str, kind: type[io.BytesIO]) -> None:
    """From the end, by the description, and from the front; bytes beyond the vector length are zero."""
    snapshot = whole(name, kind)
    assert not snapshot.problems
    assert len(snapshot.vcpus) == len(truth()[name]["registers"])
    for vcpu, registers in zip(snapshot.vcpus, truth()[name]["registers"], strict=True):
        assert samples.differences(vcpu, registers, cut_z="sve2048" in name) == []
        assert {id for id, data in vcpu.registers.items() if len(data) != size_of(id)} == set()


@pytest.mark.slow
def test_mapped_ram_is_skipped() -> None:
    """The file of 174 MB is read from a pipe, and RAM is not kept."""
    snapshot = opening.read(samples.DATA / f"{MAPPED}.xz")
    assert samples.differences(snapshot.vcpus[0], truth()[MAPPED]["registers"][0]) == []
    assert snapshot.facts["capabilities"] == ["mapped-ram"]


@pytest.mark.parametrize("name", samples.names())
def test_no_register_but_those_of_the_mode(name: str) -> None:
    """V, or Z and P; FFR; ZA and ZT0: a vCPU that ran has those of the truth, and of ZA rows of zeros beyond them."""
    for vcpu, registers in zip(whole(name, io.BytesIO).vcpus, truth()[name]["registers"], strict=True):
        if not registers:
            continue
        families = ("v0", "z0", "p0", "ffr", "za.h[0]", "zt0")
        assert [there for there in families if vcpu.data(there)] == [due for due in families if due in registers]
        beyond = [n for n in range(256) if f"za.h[{n}]" not in registers]
        assert not any(any(vcpu.data(f"za.h[{n}]") or b"") for n in beyond)


@pytest.mark.parametrize("name", samples.names())
def test_origin_machine_state(name: str) -> None:
    """Whether KVM or TCG wrote it, the machine, the run state, the power states, the GIC's registers."""
    snapshot, true = whole(name, io.BytesIO), truth()[name]
    assert snapshot.origin.value == true["kind"]
    assert snapshot.facts["machine"] == (true["machine"] or snapshot.facts["machine"])
    assert snapshot.facts["run_state"] == ("prelaunch" if "start" in name else "paused")
    assert set(snapshot.facts["vgic"]) & {"arm_gic", "arm_gicv3"}
    if true["power_states"]:
        states = [vcpu.facts["power_state"] for vcpu in snapshot.vcpus]
        assert states == [("on", "off", "on-pending")[state] for state in true["power_states"]]
        assert [vcpu.mp_state == uapi.KVM_MP_STATE_STOPPED for vcpu in snapshot.vcpus] == [s == "off" for s in states]


@pytest.mark.parametrize("name", samples.names())
def test_both_ways_agree(name: str) -> None:
    """From the end and from the front, with and without the description, everything that is read is equal."""
    ahead, back = whole(name, Pipe), whole(name, io.BytesIO)
    assert [vcpu.registers for vcpu in ahead.vcpus] == [vcpu.registers for vcpu in back.vcpus]
    if name == samples.SAVEVM:
        return
    assert [(device, ahead.vcpus[0].places) for device in ahead.devices] == [
        (device, back.vcpus[0].places) for device in back.devices
    ]
    stream = sample(name)
    if name != UNDESCRIBED:
        undescribed = read(stream[: stream.rindex(b"\0\x06") + 1])
        assert not undescribed.problems
        assert [vcpu.registers for vcpu in undescribed.vcpus] == [vcpu.registers for vcpu in back.vcpus]
        assert undescribed.devices == back.devices
        if "arm_gicv3" in back.facts["vgic"]:
            assert undescribed.facts["vgic"]["arm_gicv3"] == back.facts["vgic"]["arm_gicv3"]


def test_ram_is_not_read_where_the_file_can_be_seeked(tmp_path: Path) -> None:
    """Damaged RAM is not even noticed from the end, and is where it has to be passed."""
    stream = bytearray(sample(ALL_MODES))
    stream[200_000:300_000] = bytes(100_000)
    assert not read(bytes(stream)).facts["ram_was_read"]
    with pytest.raises(BadBlob, match="flags"):
        read(bytes(stream), Pipe)
    large = tmp_path / "large"
    at = stream.index(b"\x02\0\0\0\x01")
    with open(large, "wb") as file:  # 8 GiB of holes between two parts of RAM
        file.write(stream[:at])
        file.seek(8 << 30)
        file.write(stream[400_000:])
    snapshot = opening.read(large)
    assert samples.differences(snapshot.vcpus[0], truth()[ALL_MODES]["registers"][0]) == []
    assert snapshot.vcpus[0].places[regid.parse("x0")] > 8 << 30


@pytest.mark.parametrize("name", [ALL_MODES, KVM, "q72-a57-gicv2-run"])
def test_places(name: str) -> None:
    """At each register's place stands what was read, byte-swapped."""
    stream, vcpu = sample(name), whole(name, io.BytesIO).vcpus[0]
    assert vcpu.registers.keys() == vcpu.places.keys()
    for id, data in vcpu.registers.items():
        if regid.name_of(id) in ("fpsr", "fpcr"):
            continue
        size = {"pstate": 4}.get(regid.name_of(id), 8)
        place = vcpu.places[id]
        assert stream[place : place + size].lstrip(b"\0") == data[:8][::-1].lstrip(b"\0"), regid.name_of(id)


def test_unknown_facts() -> None:
    """What a stream cannot hold is named; without SVE and SME the sets of lengths are known to be empty."""
    every, plain = whole(ALL_MODES, io.BytesIO), whole("q72-a57-gicv2-run", io.BytesIO)
    assert every.unknown >= {Fact.VECTOR_LENGTHS, Fact.LONG_Z, Fact.FEATURES, Fact.ORDER, Fact.HOST, Fact.KERNEL}
    assert (every.sve_bits, every.sme_bits) == (None, None)
    assert not plain.unknown & {Fact.VECTOR_LENGTHS, Fact.LONG_Z}
    assert (plain.sve_bits, plain.sme_bits) == ((), ())


def vcpu_of(data: bytes) -> tuple[VcpuSnapshot, list[Problem]]:
    """A vCPU from the data of its section."""
    problems: list[Problem] = []
    return qemu_cpu.read(data, 0, 0, problems).vcpu, problems


def section(
    cpsr: int = EL1H, ids: tuple[int, ...] = (), values: tuple[int, ...] = (), *parts: tuple[str, bytes], **fields: int
) -> bytes:
    """The data of section cpu: X31 is 31, SP_ELn 100 + n, fpscr 0 unless parts say so; one more id makes it arm64."""
    ids, values = (regid.parse("midr_el1"), *ids), (0, *values)
    head = [0] * len(HEAD.struct.unpack(bytes(HEAD.size_bytes)))
    head[HEAD.first["env.xregs"] + 31] = 31
    for level in range(4):
        head[HEAD.first["env.sp_el"] + level] = 100 + level
    head[HEAD.first["cpsr"]], head[-1] = cpsr, len(ids)
    for name, value in fields.items():
        field, _, index = name.partition("__")
        head[HEAD.first[f"env.{field}"] + int(index)] = value
    packed = HEAD.struct.pack(*head) + struct.pack(f">{2 * len(ids)}Q", *ids, *values) + bytes(TAIL.size_bytes)
    return packed + b"".join(subsection(*part) for part in parts or ((VFP, bytes(VFP_BYTES)),))


def subsection(name: str, data: bytes) -> bytes:
    """A subsection with its header."""
    return bytes([5, len(name)]) + name.encode() + SUBSECTIONS[name][0].to_bytes(4, "big") + data


@pytest.mark.parametrize(
    ("cpsr", "sp", "sp_el1", "facts"),
    [
        (EL1H, 100, 31, {"sp_el2": 102, "sp_el3": 103}),
        (EL1T, 31, 101, {"sp_el2": 102, "sp_el3": 103}),
        (EL0T, 31, 101, {"sp_el2": 102, "sp_el3": 103}),
        (EL2H, 100, 101, {"sp_el2": 31, "sp_el3": 103}),
        (EL3H, 100, 101, {"sp_el2": 102, "sp_el3": 31}),
    ],
)
def test_stack_pointer_of_the_current_level(cpsr: int, sp: int, sp_el1: int, facts: dict[str, int]) -> None:
    """xregs[31] is it; the entry of sp_el is stale."""
    vcpu, problems = vcpu_of(section(cpsr))
    assert (vcpu.value("sp"), vcpu.value("sp_el1"), problems) == (sp, sp_el1, [])
    assert facts.items() <= vcpu.facts.items()


def test_aarch32_state() -> None:
    """In FIQ mode R8 to R14 are FIQ's; those of the other modes come from their banks."""
    fields = {f"regs__{n}": 200 + n for n in range(16)} | {f"usr_regs__{n}": 300 + n for n in range(5)}
    fields |= {f"banked_r13__{n}": 400 + n for n in range(8)} | {f"banked_r14__{n}": 500 + n for n in range(8)}
    vcpu, problems = vcpu_of(section(0x11, **fields))
    x = [vcpu.value(f"x{n}") for n in range(31)]
    assert x[:13] == [*range(200, 208), *range(300, 305)]
    assert x[13:24] == [400, 500, 406, 504, 404, 501, 401, 502, 402, 503, 403]
    assert (x[24:], vcpu.value("pc")) == ([208, 209, 210, 211, 212, 213, 214], 215)
    assert [problem.rule for problem in problems] == ["aarch32-state"]
    assert regid.parse("x8") not in vcpu.places
    user, _ = vcpu_of(section(0x10, **fields, fiq_regs__0=600))
    assert [user.value(f"x{n}") for n in (8, 12, 13, 14, 24, 29)] == [208, 212, 213, 214, 600, 405]


def test_fpscr_is_split() -> None:
    """The AArch32 FPSCR holds FPSR's and FPCR's bits; a subsection holds both where it cannot."""
    fpscr = bytes(VFP_BYTES - 4) + (0x0A00_0081 | 1 << 24).to_bytes(4, "big")
    vcpu, _ = vcpu_of(section(EL1H, (), (), (VFP, fpscr)))
    assert (vcpu.value("fpsr"), vcpu.value("fpcr")) == (0x0800_0081, 0x0300_0000)
    apart = struct.pack(">QQ", 7, 9)
    vcpu, problems = vcpu_of(section(EL1H, (), (), (VFP, bytes(VFP_BYTES)), (FPCR_FPSR, apart)))
    assert (vcpu.value("fpsr"), vcpu.value("fpcr"), problems) == (9, 7, [])
    vcpu, problems = vcpu_of(section(EL1H, (), (), (VFP, fpscr), (FPCR_FPSR, apart)))
    assert ([problem.rule for problem in problems], vcpu.value("fpcr")) == (["fpscr-twice"], 7)


def test_serror_and_subsections_that_are_missing_or_unknown() -> None:
    """A pending SError; SVE without its subsection; a subsection of no version that is known."""
    vcpu, _ = vcpu_of(section(EL1H, (), (), (SERROR, struct.pack(">BBQ", 1, 1, 0xBE00_0001))))
    assert vcpu.serror == (True, True, 0xBE00_0001)
    _, problems = vcpu_of(section(EL1H, (regid.parse("zcr_el1"),), (15,)))
    assert [(problem.rule, SVE in problem.text) for problem in problems] == [("missing-subsection", True)]
    unknown = section() + b"\x05\x07cpu/new" + (1).to_bytes(4, "big")
    assert [problem.rule for problem in vcpu_of(unknown)[1]] == ["unknown-subsection"]
    assert [problem.rule for problem in vcpu_of(section() + b"\x01\x02")[1]] == ["malformed"]


@pytest.mark.parametrize(
    ("ids", "values", "rule"),
    [
        (("svcr", "svcr"), (0, 0), "duplicate-register"),
        (("vbar_el1", "sctlr_el1"), (0, 0), "malformed"),
        (("v0",), (0,), "wrong-size"),
        (("ccsidr[0]",), (1 << 32,), "value-too-wide"),
    ],
)
def test_damaged_list(ids: tuple[str, ...], values: tuple[int, ...], rule: str) -> None:
    """Each way in which a list of ids is none that QEMU writes."""
    numbers = tuple(map(regid.parse, ids))
    data = section(EL1H, numbers, values)
    assert rule in [problem.rule for problem in vcpu_of(data)[1]]


def test_not_arm64() -> None:
    """A CPU of another architecture, and one that has AArch32 only, are refused in one sentence."""
    stream = without_ram(sample(samples.SMALL))
    at = stream.index(b"\x03cpu\0\0\0\0\0\0\0\x16")
    with pytest.raises(BadBlob, match="version 12"):
        read(stream[: at + 11] + b"\x0c" + stream[at + 12 :])
    with pytest.raises(BadBlob, match="cpu/thumb2ee"):
        vcpu_of(section() + b"\x05\x0ccpu/thumb2ee" + bytes(4))
    data = section().replace(regid.parse("midr_el1").to_bytes(8, "big"), (0x4030 << 48).to_bytes(8, "big"))
    with pytest.raises(BadBlob, match="not an arm64"):
        vcpu_of(data)


def test_whose() -> None:
    """Marks of both, or of none, leave the origin open."""
    firmware, aarch32 = regid.parse("psci_version"), 0x4030_0000_0000_0000
    assert qemu_devices.whose((firmware, aarch32)).origin is Origin.UNKNOWN
    assert qemu_devices.whose((regid.parse("svcr"),)).origin is Origin.UNKNOWN
    assert "no AArch32 registers" in qemu_devices.whose((firmware,)).reasons
