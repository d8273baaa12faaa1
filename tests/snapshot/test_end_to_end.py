# SPDX-License-Identifier: MIT
"""From QEMU's streams of KVM guests into vCPUs of the same host and kernel; samples through every format of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from fuzz.blobs.samples import samples
from golden import packs

import kvmabi
from kvmabi import regid
from kvmabi.profiles import Host
from kvmabi.profiles.host import host_decides
from kvmabi.snapshot import opening
from kvmabi.snapshot.checks.case import WHOLE_LISTS
from kvmabi.snapshot.checks.findings import Report
from kvmabi.snapshot.formats import json_, own, text
from kvmabi.snapshot.restoring import RestoreError
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.target import Target
from kvmabi.snapshot.validate import validate
from snapshot.qemu_samples import sample

COUNTERS = frozenset(map(regid.parse, ("cntvct_el0", "cntpct_el0")))
SVE_BITS = (128, 256)
MAX = "sme-v12.sve512_nosme"
"""A capture of the CPU that the guests of Linux 7.2 ran on, with other vector lengths."""
GUESTS = {
    "k61-q72-sve256": ("6.1-sve-max", "linux-6.1"),
    "k612-q100-sve256": ("6.12-sve-max", "linux-6.12"),
    "k612-q100-sve256-guest128": ("6.12-sve-max", "linux-6.12"),
    "k612-q111-a57": ("7.3-cortex-a57", "linux-6.12"),
    "k72-q100-sve256": (MAX, "linux-7.2"),
    "k72-q111-sve256": (MAX, "linux-7.2"),
}
ORDER = "order-"
"""The rules of a stored order: kvmabi's own files are restored by the plan, so they say less of it."""
LOST = frozenset({"vectors-lost", "bitmaps-lost"})
"""Their text says whose format has no place."""
WRITERS: dict[str, Callable[[Snapshot], bytes]] = {
    "kvmabi": own.write,
    "json": lambda snapshot: json_.write(snapshot).encode(),
    "text": lambda snapshot: text.write(snapshot).encode(),
}


def host_of(name: str, snapshot: Snapshot) -> Host:
    """The host that a guest ran on.

    Under Linux 6.1 and 6.12 no capture of that CPU exists: there, one of the same kernel gets the values of the
    registers that the host decides from the stream itself, so that their writes prove nothing, all others' do.
    """
    capture, kernel = GUESTS[name]
    host = replace(packs.host(capture), kernel=kernel)
    if not host.sve_vector_bits:
        return host
    registers = dict(host.registers)
    if capture != MAX:
        stored = snapshot.vcpus[0].registers
        registers |= {id: int.from_bytes(data, "little") for id, data in stored.items() if host_decides(id)}
    return replace(host, sve_vector_bits=SVE_BITS, registers=registers)


@pytest.mark.slow
@pytest.mark.parametrize("name", GUESTS)
def test_kvm_streams_are_restored_without_a_refusal(name: str) -> None:
    """Every register of the stream is taken and read back, but counters that count; validate has foretold it."""
    snapshot = opening.read_bytes(sample(name))
    if name.endswith("guest128"):  # a stream does not hold the lengths
        snapshot.sve_bits = SVE_BITS[:1]
    host = host_of(name, snapshot)
    assert validate(snapshot, Target.of(host=host)).errors == []
    with kvmabi.open(host=host) as kvm:
        restored = kvmabi.restore(snapshot, kvm.create_vm())
        again = kvmabi.save(list(restored.vcpus))
        assert kvm.findings() == []
    at_reset = {regid.name_of(id) for ids in restored.at_reset.values() for id in ids}
    assert (restored.refused_equal, restored.tolerated) == ((), ())
    assert at_reset <= {"sve_vls"}
    for before, after in zip(snapshot.vcpus, again.vcpus, strict=True):
        differing = {id for id, data in before.registers.items() if after.registers.get(id) != data}
        assert differing <= COUNTERS
        assert before.mp_state == after.mp_state


def test_another_cpu_refuses() -> None:
    """What the test above would show: the capture of an older CPU under the same kernel does not take the guest."""
    snapshot = opening.read_bytes(sample("k612-q100-sve256"))
    with (
        kvmabi.open(host=packs.host("6.12-sve-max")) as kvm,
        pytest.raises(RestoreError, match="id_aa64zfr0_el1"),
    ):
        kvmabi.restore(snapshot, kvm.create_vm())


@pytest.mark.slow
@pytest.mark.parametrize("name", samples())
@pytest.mark.parametrize("form", WRITERS)
def test_round_trip(name: str, form: str) -> None:
    """Blob, another format, blob: registers in their order; all else as far as that format has a place for it."""
    snapshot = opening.read_bytes(samples()[name])
    again = opening.read_bytes(WRITERS[form](snapshot))
    assert [list(vcpu.registers.items()) for vcpu in again.vcpus] == [
        list(vcpu.registers.items()) for vcpu in snapshot.vcpus
    ]
    assert [vcpu.index for vcpu in again.vcpus] == [vcpu.index for vcpu in snapshot.vcpus]
    if form == "text":
        return
    there, back = json_.document(snapshot), json_.document(opening.read_bytes(own.write(again)))
    ignored = {"format", "problems"}
    assert {key: there[key] for key in there if key not in ignored} == {k: back[k] for k in back if k not in ignored}


@pytest.mark.slow
@pytest.mark.parametrize("name", samples())
def test_a_converted_sample_has_the_same_findings(name: str) -> None:
    """What is found in a foreign file is found in its copy in our format, without and with a target."""
    snapshot = opening.read_bytes(samples()[name])
    again = opening.read_bytes(own.write(snapshot))
    for target in (None, Target.of(host="sme-demo"), Target.of(host="neoverse-v1", kernel="linux-6.12")):
        there = findings(validate(replace(snapshot, problems=[]), target))
        if snapshot.format in WHOLE_LISTS:  # the copy does not say whether the list or its format lacked the lengths
            there = [each for each in there if '"vls-missing"' not in each]
        assert findings(validate(again, target)) == there


def findings(report: Report) -> list[str]:
    """Everything of the findings but their places, and without what is of a format."""
    found = [
        finding.as_dict() | {"offset": None} for finding in report.findings if not finding.rule.id.startswith(ORDER)
    ]
    return sorted(json.dumps(each | ({"text": ""} if each["rule"] in LOST else {})) for each in found)
