# SPDX-License-Identifier: MIT
"""Samples of foreign formats: every register of every vCPU is what the sample's truth says."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from kvmabi import regid
from kvmabi.snapshot import opening
from kvmabi.snapshot.snapshot import Snapshot

DATA = Path(__file__).resolve().parent.parent / "data"
TRUTH = ".truth.txt.xz"
SAMPLES = sorted(path.name.removesuffix(TRUTH) for path in DATA.glob(f"*{TRUTH}"))
FLIPPED = "fc15-a57-badcrc.vmstate"
"""The sample of which one bit is flipped, in the data of a register."""


def read(name: str) -> Snapshot:
    """A sample, which is compressed."""
    return opening.read(DATA / f"{name}.xz")


def truth(name: str) -> dict[int, bytes]:
    """The registers of each vCPU of a sample that its format holds."""
    lines = lzma.decompress((DATA / f"{name}{TRUTH}").read_bytes()).decode().splitlines()
    registers = {int(id, 16): bytes.fromhex(data) for id, _, data in (line.partition("=") for line in lines)}
    if name.startswith("crosvm"):
        return {id: data for id, data in registers.items() if regid.decode(id).family != "firmware_bitmap"}
    return registers


@pytest.mark.parametrize("name", SAMPLES)
def test_registers_are_the_truth(name: str) -> None:
    snapshot = read(name)
    expected = truth(name)
    for vcpu in snapshot.vcpus:
        differing = {id for id in expected if vcpu.registers.get(id) != expected[id]}
        assert vcpu.registers.keys() == expected.keys()
        assert len(differing) == (name == FLIPPED)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_place_holds_the_register(name: str) -> None:
    """A register's place lies within the unpacked file, and Firecracker's has the register's bytes."""
    content = lzma.decompress((DATA / f"{name}.xz").read_bytes())
    for vcpu in read(name).vcpus:
        assert vcpu.places.keys() == vcpu.registers.keys()
        for id, place in vcpu.places.items():
            assert 0 < place < len(content)
            data = vcpu.registers[id]
            if name.startswith("fc"):
                assert content[place : place + len(data)] == data
            elif name.startswith("ch"):
                assert content[place : place + 1] in b"0123456789[i"


def test_samples_are_what_they_are_named_after() -> None:
    """Format, number of vCPUs, MP states, vector lengths and problems of each sample."""
    found = {}
    for name in SAMPLES:
        snapshot = read(name)
        rules = sorted({problem.rule for problem in snapshot.problems})
        states = [vcpu.mp_state for vcpu in snapshot.vcpus]
        found[name] = (snapshot.format, states, snapshot.sve_bits, snapshot.sme_bits, rules)
    assert found == {
        "ch51-cortex-a57.state.json": ("cloud-hypervisor", [0], (), (), []),
        "ch53-neoverse-v1.state.json": ("cloud-hypervisor", [0, 3], (128, 256), (), []),
        "ch53-sme-lost.state.json": ("cloud-hypervisor", [0], (128, 256), None, []),
        "crosvm-cortex-a57.tar": ("crosvm", [None], (), (), []),
        "crosvm-neoverse-n2-v-is-zero.tar": ("crosvm", [None, None], None, (), ["v-on-sve-vcpu"]),
        "fc14-neoverse-v1.vmstate": ("firecracker", [0, 0], (128, 256), (), []),
        "fc15-a57-badcrc.vmstate": ("firecracker", [None], (), (), ["bad-crc"]),
        "fc16-neoverse-n2.vmstate": ("firecracker", [None, None], (128,), (), []),
    }


def test_text_sample() -> None:
    """A dump of IDs and bytes: the order is that of the file."""
    snapshot = read("sme-v12-reset.ids.txt")
    lines = lzma.decompress((DATA / "sme-v12-reset.ids.txt.xz").read_bytes()).decode().splitlines()
    ids = [int(line.partition("=")[0], 16) for line in lines if not line.startswith("#")]
    assert list(snapshot.vcpus[0].registers) == ids
    assert (snapshot.format, snapshot.problems) == ("text", [])
