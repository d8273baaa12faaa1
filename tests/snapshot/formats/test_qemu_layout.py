# SPDX-License-Identifier: MIT
"""The tables of section cpu: a parser of the construct library that is built from them reads what the reader reads."""

from __future__ import annotations

import construct
import pytest

from kvmabi import regid
from kvmabi.snapshot.formats.qemu_cpu_layout import HEAD, SUBSECTIONS, TAIL, unlisted
from kvmabi.snapshot.formats.qemu_layout import Layout
from snapshot import qemu_samples as samples
from snapshot.qemu_samples import read, sample

_TYPES = {"B": construct.Int8ub, "I": construct.Int32ub, "Q": construct.Int64ub, "8s": construct.Bytes(8)}


def parser_of(layout: Layout) -> construct.Construct:
    """A parser of the same fields."""
    return construct.Struct(
        *(
            construct.Renamed(
                _TYPES[member.code][member.items] if member.items > 1 else _TYPES[member.code], newname=member.name
            )
            for member in layout.members
        )
    )


_SUBSECTION = construct.Struct(
    construct.Const(b"\x05"),
    "name" / construct.PascalString(construct.Int8ub, "ascii"),
    "version" / construct.Int32ub,
    "fields" / construct.Switch(construct.this.name, {name: parser_of(row[1]) for name, row in SUBSECTIONS.items()}),
)
SECTION = construct.Struct(
    "head" / parser_of(HEAD),
    "ids" / construct.Int64ub[construct.this.head.cpreg_vmstate_array_len],
    "values" / construct.Int64ub[construct.this.head.cpreg_vmstate_array_len],
    "tail" / parser_of(TAIL),
    "subsections" / construct.GreedyRange(_SUBSECTION),
    construct.Terminated,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", [samples.ALL_MODES, samples.KVM, "q100-v1-smp2-secondary-off"])
def test_both_read_the_same(name: str) -> None:
    """Registers of the head, listed ones, and every word of Z, P and ZA."""
    stream, snapshot = sample(name), read(sample(name))
    sections = [device for device in snapshot.devices if device["name"] == "cpu"]
    for vcpu, device in zip(snapshot.vcpus, sections, strict=True):
        parsed = SECTION.parse(stream[device["offset"] :][: device["size_bytes"]])
        assert [vcpu.value(f"x{n}") for n in range(31)] == list(parsed.head["env.xregs"][:31])
        assert (vcpu.value("pc"), vcpu.value("pstate")) == (parsed.head["env.pc"], parsed.head.cpsr)
        for id, value in zip(parsed["ids"], parsed["values"], strict=True):
            size = regid.decode(id).size_bytes
            assert vcpu.registers[id] == value.to_bytes(8, "little")[:size]
        parts = {part.name: part.fields for part in parsed.subsections}
        assert {part.name: part.version for part in parsed.subsections} == {
            name: SUBSECTIONS[name][0] for name in parts
        }
        low, high = parts["cpu/vfp"].zregs, parts["cpu/sve"].zregs
        for n, id in enumerate(unlisted().z):
            assert vcpu.registers[id][:128] == words([*low[2 * n : 2 * n + 2], *high[14 * n : 14 * n + 14]])
        for n, id in enumerate(unlisted().p):
            assert vcpu.registers[id] == words(parts["cpu/sve"].pregs[4 * n : 4 * n + 4])
        for n, id in enumerate(unlisted().za if "cpu/sme" in parts else ()):
            assert vcpu.registers[id] == words(parts["cpu/sme"].za[32 * n : 32 * n + 32])


def words(numbers: list[int]) -> bytes:
    """Words of 64 bits as KVM_GET_ONE_REG transfers them."""
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def test_offsets_of_the_table() -> None:
    """Where the fields stand in every stream since QEMU 7.2."""
    known = {"env.xregs": 0x40, "env.pc": 0x140, "cpsr": 0x148, "env.banked_spsr": 0x150, "env.elr_el": 0x1F8}
    assert {name: HEAD.at[name] for name in known} == known
    assert (HEAD.at["env.sp_el"], HEAD.size_bytes, TAIL.size_bytes) == (0x218, 0x23C, 65)
    sizes = {name.removeprefix("cpu/"): layout.size_bytes for name, (_, layout) in SUBSECTIONS.items()}
    assert sizes == {
        **{"vfp": 576, "vfp/fpcr_fpsr": 16, "sve": 4128, "sme": 65536, "zt0": 64, "fpmr": 8},
        **{"irq-line-state": 4, "wfxt-timer": 8, "serror": 10},
    }
