# SPDX-License-Identifier: MIT
"""Targets: the register map of a snapshot's vCPU there, and what a restore there refuses."""

from __future__ import annotations

import pytest
from taken import taken

import kvmabi
from kvmabi import UsageError, host_names
from kvmabi.model.mode import Mode
from kvmabi.model.plan import LENGTHS, Plan, Stage
from kvmabi.snapshot.lengths import vls_of
from kvmabi.snapshot.snapshot import VcpuSnapshot
from kvmabi.snapshot.target import Target, is_decisive


@pytest.mark.parametrize("host", host_names())
@pytest.mark.parametrize("svcr", [0, 3])
def test_the_map_lists_what_the_vcpu_lists(host: str, svcr: int) -> None:
    """The map on the source's own host is the one that the snapshot was taken with."""
    saved = taken(host, svcr=svcr)
    map = Target.of(host=host).map(saved.vcpus[0], saved.features)
    assert map is not None
    assert [id for id in map.listed if map.row(id).get is None] == list(saved.vcpus[0].registers)


@pytest.mark.parametrize("host", ["sme-demo", "neoverse-v1", "cortex-a57"])
def test_what_is_not_decisive_is_never_refused(host: str) -> None:
    """The trial writes decisive registers only: any value of another one is taken by the model."""
    saved = taken(host, svcr=3)
    with kvmabi.open(host=host, checked=False) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init(saved.features)
        registers = saved.vcpus[0].registers
        for step in Plan.of(registers).steps():
            if step.stage is Stage.FINALIZE:
                vcpu.finalize()
            elif step.id is not None:
                data = registers[step.id]
                vcpu[step.id] = data if is_decisive(step.id) else b"\xff" * len(data)


def test_lengths_and_svcr_make_the_mode() -> None:
    """The order of the plan: lengths before FINALIZE, svcr after it."""
    saved = taken("sme-demo", svcr=2, lengths={"sve_vls": vls_of([128])})
    map = Target.of(host="sme-demo").map(saved.vcpus[0], saved.features)
    assert map is not None
    mode: Mode = map.mode
    assert (mode.sve_vq, mode.sme_vq, mode.sm, mode.za, mode.finalized) == (1, 8, False, True, True)


def test_given_lengths_stand_for_absent_registers() -> None:
    """What the user says of the guest is written where the file has none; the file's own comes first."""
    saved = taken("sme-demo")
    target = Target.of(host="sme-demo", sve_bits=[128], sme_bits=[256, 512])
    map = target.map(saved.vcpus[0], saved.features)
    assert map is not None
    assert (map.mode.sve_vq, map.mode.sme_vq) == (2, 8)
    for id in LENGTHS:
        del saved.vcpus[0].registers[id]
    map = target.map(saved.vcpus[0], saved.features)
    assert map is not None
    assert (map.mode.sve_vq, map.mode.sme_vq) == (1, 4)


def test_without_a_host_there_is_no_map() -> None:
    """A kernel alone does not decide what a vCPU has."""
    assert Target.of(kernel="linux-7.2").map(VcpuSnapshot(0, {})) is None
    assert Target().map(VcpuSnapshot(0, {})) is None


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"host": "no-such-host"}, "no-such-host"),
        ({"kernel": "linux-1.0"}, "linux-1.0"),
        ({"features": ["sv"]}, "sv"),
        ({"features": "sve"}, "sve"),
        ({"sve_bits": [100]}, "multiples of 128"),
        ({"sme_bits": [4096]}, "2048"),
    ],
)
def test_wrong_targets(wrong: dict[str, object], word: str) -> None:
    """One line that names what is wrong."""
    with pytest.raises(UsageError, match=word):
        Target.of(**wrong)  # type: ignore[arg-type]
