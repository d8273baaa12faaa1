# SPDX-License-Identifier: MIT
"""Every format against writers made from its rules: all registers of all vCPUs, exactly, and what each cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from kvmabi import regid
from kvmabi.profiles.host import host_names
from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import json_, text
from kvmabi.snapshot.snapshot import Fact, Snapshot
from snapshot import encoders
from snapshot.encoders import Registers

HOSTS = sorted(host_names())
COUNTS = (1, 2, 3, pytest.param(17, marks=pytest.mark.slow))


def read_as(data: bytes, format: str) -> Snapshot:
    """A snapshot that is read without a problem, as a format that its content shows."""
    snapshot = opening.read_bytes(data)
    assert snapshot.format == format
    assert snapshot.problems == []
    return snapshot


def registers_of(snapshot: Snapshot) -> list[Registers]:
    """The registers of each vCPU, whose numbers are 0, 1, …"""
    assert [vcpu.index for vcpu in snapshot.vcpus] == list(range(len(snapshot.vcpus)))
    return [vcpu.registers for vcpu in snapshot.vcpus]


@pytest.mark.parametrize("encode", [encoders.bincode, encoders.bitcode])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("host", HOSTS)
def test_firecracker_keeps_every_register_in_order(
    host: str, count: int, encode: Callable[[Sequence[Registers]], bytes]
) -> None:
    machines = encoders.saved(host, count)
    read = registers_of(read_as(encode(machines), "firecracker"))
    assert [list(each.items()) for each in read] == [list(each.items()) for each in machines]


@pytest.mark.parametrize("shape", ["v53", "v40", "derived"])
@pytest.mark.parametrize(("wrapped", "in_string", "indent"), [(True, True, 0), (False, True, 0), (True, False, 2)])
@pytest.mark.parametrize("host", HOSTS)
def test_cloud_hypervisor_in_every_shape(host: str, shape: str, wrapped: bool, in_string: bool, indent: int) -> None:
    """All registers; before v53 those that the format has: where the vCPU has Z, that is a loss."""
    machines = encoders.saved(host, 3)
    blob = encoders.cloud_hypervisor(machines, shape, wrapped=wrapped, in_string=in_string, indent=indent)
    snapshot = opening.read_bytes(blob)
    held = machines if shape == "v53" else [_narrow(registers) for registers in machines]
    assert snapshot.format == "cloud-hypervisor"
    assert registers_of(snapshot) == held
    lost = held != machines and snapshot.sve_bits != ()
    assert {problem.rule for problem in snapshot.problems} == ({"v-on-sve-vcpu"} if lost else set())
    assert [vcpu.mp_state for vcpu in snapshot.vcpus] == [0, 3, 3]
    assert [device["name"] for device in snapshot.devices] == ["gic-v3-its"]
    assert snapshot.devices[0]["counts"] == {"dist": 3, "rdist": 40, "icc": 20}
    assert Fact.FEATURES in snapshot.unknown


def _narrow(registers: Registers) -> Registers:
    return {id: data for id, data in registers.items() if regid.decode(id).family not in ("sve", "sme")}


@pytest.mark.parametrize("svcr", range(4))
@pytest.mark.parametrize("host", ["sme-demo", "sme-nosve-sme512"])
def test_formats_with_all_registers_in_every_mode(host: str, svcr: int) -> None:
    """In streaming mode a vCPU without SVE has Z, and V is no register; without ZA there are no rows."""
    machines = encoders.saved(host, 2, svcr=svcr)
    for encode in (encoders.bincode, encoders.bitcode, encoders.cloud_hypervisor):
        assert registers_of(opening.read_bytes(encode(machines))) == machines


@pytest.mark.parametrize("count", COUNTS)
def test_cloud_hypervisor_with_any_number_of_vcpus(count: int) -> None:
    machines = encoders.saved("neoverse-v1", count)
    assert registers_of(read_as(encoders.cloud_hypervisor(machines), "cloud-hypervisor")) == machines


@pytest.mark.parametrize("host", HOSTS)
def test_crosvm_keeps_what_it_can(host: str) -> None:
    """All but vectors and bitmaps; V of zeros on a vCPU with SVE is no register, and said to be a loss."""
    machines = encoders.saved(host, 3)
    snapshot = opening.read_bytes(encoders.crosvm(machines))
    assert registers_of(snapshot) == [encoders.held_by_crosvm(registers) for registers in machines]
    lost = "sve" in {regid.decode(id).family for id in machines[0]} and snapshot.sve_bits != ()
    assert {problem.rule for problem in snapshot.problems} == ({"v-on-sve-vcpu"} if lost else set())
    assert (Fact.SVE in snapshot.unknown) >= lost
    assert snapshot.unknown >= {Fact.FIRMWARE_BITMAPS, Fact.ORDER, Fact.FEATURES, Fact.MP_STATE}


@pytest.mark.parametrize("count", COUNTS)
def test_crosvm_with_any_number_of_vcpus(count: int) -> None:
    machines = encoders.saved("cortex-a57", count)
    read = registers_of(read_as(encoders.crosvm(machines), "crosvm"))
    assert read == [encoders.held_by_crosvm(registers) for registers in machines]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("host", HOSTS)
def test_json_and_text_are_exact(host: str, count: int) -> None:
    """A snapshot that is written and read again is the same, but for what text cannot hold."""
    snapshot = opening.read_bytes(encoders.bincode(encoders.saved(host, count)))
    again = opening.read_bytes(json_.write(snapshot).encode())
    assert json_.document(again) == json_.document(snapshot)
    assert [list(each.items()) for each in registers_of(again)] == [
        list(each.items()) for each in registers_of(snapshot)
    ]
    for named in (False, True):
        of_text = read_as(text.write(snapshot, named=named).encode(), "text")
        assert [list(each.items()) for each in registers_of(of_text)] == [
            list(each.items()) for each in registers_of(snapshot)
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "encode",
    [encoders.bincode, encoders.bitcode, encoders.cloud_hypervisor, encoders.crosvm],
    ids=lambda each: each.__name__,
)
def test_the_largest_vm(encode: Callable[[Sequence[Registers]], bytes]) -> None:
    """512 vCPUs, each with registers of its own."""
    machines = encoders.saved("cortex-a57", 512)
    held = [encoders.held_by_crosvm(each) for each in machines] if encode is encoders.crosvm else machines
    assert registers_of(opening.read_bytes(encode(machines))) == held
