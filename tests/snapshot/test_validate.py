# SPDX-License-Identifier: MIT
"""validate on whole snapshots: no false alarm, what a report says, and what it costs in memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taken import taken

from kvmabi import host_names, kernel_names, regid
from kvmabi.profiles import load_host
from kvmabi.snapshot import validate as validating
from kvmabi.snapshot.checks import registers as checks_of_registers
from kvmabi.snapshot.checks.rules import Severity
from kvmabi.snapshot.snapshot import Fact, Origin, Problem, Snapshot, VcpuSnapshot
from kvmabi.snapshot.target import Target
from kvmabi.snapshot.validate import validate

SIZES = st.sampled_from([0, 1, 4, 8, 16, 32, 64, 256, 300])
STRANGE_IDS = st.one_of(st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFF).map(lambda low: 0x6030000000130000 | low))
EL2_CAPABILITY = 240
HOST = "sme-sve256-sme512-nofa64"


@pytest.mark.parametrize("host", host_names())
@pytest.mark.parametrize("svcr", [0, 3])
def test_clean_on_its_own_host(host: str, svcr: int) -> None:
    """A vCPU of a host is clean before that host, in streaming mode and not."""
    report = validate(taken(host, svcr=svcr), Target.of(host=host))
    assert report.is_clean, str(report)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    host=st.sampled_from(host_names()),
    kernel=st.sampled_from(kernel_names()),
    svcr=st.integers(0, 3),
    without=st.frozensets(st.sampled_from(["sve", "sme", "pmu_v3", "psci_0_2"])),
    el2=st.booleans(),
    says_features=st.booleans(),
)
def test_clean_on_any_host(
    host: str, kernel: str, svcr: int, without: frozenset[str], el2: bool, says_features: bool
) -> None:
    """The same under every kernel, for any features, with the features in the file and without."""
    profile = load_host(host)
    if el2:  # no built-in host offers it
        profile = replace(profile, capabilities_vm=profile.capabilities_vm | {EL2_CAPABILITY: 1})
    snapshot = taken(profile, kernel, svcr=svcr, without=without, also=["has_el2"])
    if not says_features:
        snapshot.features = None
    report = validate(snapshot, Target.of(host=profile, kernel=kernel))
    assert report.is_clean, str(report)


@pytest.mark.slow
@settings(max_examples=40)
@given(host=st.sampled_from(host_names()), svcr=st.integers(0, 3))
def test_clean_without_a_target(host: str, svcr: int) -> None:
    """Without a target there is a note about that, and nothing else that is bad."""
    report = validate(taken(host, "linux-7.3" if not load_host(host).sme_vector_bits else "sme-v12", svcr=svcr))
    assert report.is_clean, str(report)
    assert any("target" in finding.details[0]["fact"] for finding in report.not_judged)


@settings(max_examples=40)
@given(st.dictionaries(STRANGE_IDS, SIZES, max_size=6), st.binary(max_size=80), st.integers(0, 7))
def test_hostile_registers_are_findings(sizes: dict[int, int], vls: bytes, svcr: int) -> None:
    """Any IDs, any sizes, any lengths: a report, never an exception."""
    registers = {id: b"\xff" * size for id, size in sizes.items()}
    registers |= {regid.parse("sme_vls"): vls, regid.parse("svcr"): bytes([svcr]), regid.parse("pstate"): b""}
    for origin in Origin:
        snapshot = Snapshot("text", [VcpuSnapshot(0, registers)], origin)
        for target in (None, Target.of(host=HOST), Target.of(kernel="linux-6.1")):
            assert validate(snapshot, target).errors


def test_a_usual_list_needs_no_list_of_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all kernels on all hosts take a second to make: only a strange register is worth it."""
    monkeypatch.setattr(checks_of_registers, "known", lambda: pytest.fail("asked every kernel"))
    for host in host_names():
        snapshot = taken(host, svcr=3)
        snapshot.format = "text"  # not judged before
        snapshot.unknown = frozenset({Fact.ORDER})
        assert validate(snapshot, Target.of(host=host)).is_clean


def test_findings_of_one_vcpu_are_not_anothers() -> None:
    """What is kept of a shape holds for the values that it depends on: other values, other findings."""
    target = Target.of(host=HOST)
    assert validate(taken(HOST, svcr=2), target).is_clean
    wrong = taken(HOST, svcr=2)
    wrong.vcpus[0].registers[regid.parse("midr_el1")] = bytes(8)
    assert [finding.rule.id for finding in validate(wrong, target).errors] == ["host-bound"]
    assert validate(taken(HOST, svcr=2), target).is_clean
    assert [finding.rule.id for finding in validate(wrong, Target.of(host=HOST)).errors] == ["host-bound"]


def test_what_is_kept_is_bounded() -> None:
    """A million different files do not fill the memory."""
    for number in range(validating.KEPT + 40):
        validate(Snapshot("text", [VcpuSnapshot(0, {0x6030000000138000 + number: bytes(8)})]))
    assert len(validating._layouts) <= validating.KEPT
    assert len(validating._judged) <= validating.KEPT


def test_a_report_as_data_and_as_text() -> None:
    """A finding has its rule, registers with IDs, vCPU, offset, values, why and fix; the worst come first."""
    snapshot = taken(HOST)
    id = regid.parse("svcr")
    snapshot.vcpus[0].registers[id] = (0x14).to_bytes(8, "little")
    snapshot.vcpus[0].offsets = lambda: {id: 0x40}
    report = validate(snapshot, Target.of(host=HOST))
    data = json.loads(json.dumps(report.as_dict()))
    (error,) = [finding for finding in data["findings"] if finding["severity"] == "error"]
    assert (error["rule"], error["register"], error["vcpu"], error["offset"]) == ("svcr-reserved", "svcr", 0, 0x40)
    assert error["registers"] == [{"name": "svcr", "id": f"{id:#018x}"}]
    assert "0x14" in error["text"]
    assert error["why"]
    assert error["fix"]
    assert data["counts"]["error"] == 1
    assert data["findings"][0] == error
    text = str(report)
    assert text.splitlines()[0].startswith("model, 1 vCPU, for host sme-sve256-sme512-nofa64 under sme-v12: 1 error")
    assert "error: svcr has reserved bits (vCPU 0) [at byte 0x40] <svcr-reserved>" in text


def test_many_registers_are_one_finding() -> None:
    """Rows of ZA with one explanation stand in one line, as a range."""
    snapshot = taken(HOST, svcr=2)
    for row in range(32, 64):
        del snapshot.vcpus[0].registers[regid.parse(f"za.h[{row}]")]
    (error,) = validate(snapshot, Target.of(host=HOST)).errors
    assert (error.rule.id, error.names, len(error.registers)) == ("za-missing", "za.h[32-63]", 32)


def test_problems_of_readers_are_findings() -> None:
    """With their place; also one of a rule that the table does not have."""
    snapshot = taken(HOST)
    snapshot.problems = [
        Problem("bad-crc", "0x1 instead of 0x2", 8),
        Problem("rule-of-a-newer-reader", "odd", None, 0, regid.parse("x3")),
    ]
    crc, odd = validate(snapshot, Target.of(host=HOST)).errors
    assert (crc.rule.id, crc.text, crc.offset, crc.vcpu) == ("bad-crc", "0x1 instead of 0x2", 8, None)
    assert (odd.severity, odd.rule.title, odd.names, odd.vcpu) == (Severity.ERROR, "rule of a newer reader", "x3", 0)
    assert "odd" in str(odd)


def test_a_snapshot_without_vcpus_is_an_error() -> None:
    """A check that passes on nothing checks nothing."""
    assert [finding.rule.id for finding in validate(Snapshot("text", [])).errors] == ["no-vcpu"]


def test_facts_that_nobody_gives_are_notes() -> None:
    """A note for each missing fact, with the rules that lack it and the option that gives it; given ones have none."""
    snapshot = taken("neoverse-v1", format="qemu")
    del snapshot.vcpus[0].registers[regid.parse("sve_vls")]
    snapshot.features = None
    snapshot.unknown = frozenset({Fact.VECTOR_LENGTHS, Fact.ORDER, Fact.LONG_Z})
    notes = {finding.details[0]["fact"]: finding for finding in validate(snapshot).not_judged}
    assert notes.keys() == {"lengths", "features", "target", "order"}
    assert notes["lengths"].details[0]["give"] == "--sve 128,256 --sme 512"
    assert "beyond-length" in notes["lengths"].details[0]["rules"]
    given = Target.of(host="neoverse-v1", sve_bits=[128, 256], features=taken("neoverse-v1").features)
    report = validate(snapshot, given)
    assert report.is_clean, str(report)
    assert [finding.details[0]["fact"] for finding in report.not_judged] == ["order"]


def test_what_holds_for_several_vcpus_is_one_finding() -> None:
    """With all their indices: a VM can have hundreds."""
    snapshot = taken(HOST, vcpus=4)
    for index in (0, 1, 3):
        snapshot.vcpus[index].registers[regid.parse("svcr")] = (4).to_bytes(8, "little")
    (error,) = validate(snapshot, Target.of(host=HOST)).errors
    assert (error.vcpus, error.vcpu, error.as_dict()["vcpus"]) == ((0, 1, 3), 0, [0, 1, 3])
    assert "(vCPUs 0-1, 3)" in str(error)


def test_huge_snapshots_are_judged_in_part() -> None:
    """More registers than any kernel's list, and more kinds of vCPUs than any VM has: said, and bounded."""
    huge = {0x6030000000130000 + number: bytes(8) for number in range(30_000)}
    report = validate(Snapshot("text", [VcpuSnapshot(0, huge)]))
    assert [finding.text for finding in report.errors] == [
        f"30000 registers of a vCPU; only the first {validating.MOST_REGISTERS} are judged"
    ]
    kinds = [VcpuSnapshot(index, {0x6030000000138000 + index: bytes(8)}) for index in range(2000)]
    report = validate(Snapshot("text", kinds))
    (error,) = [finding for finding in report.errors if finding.rule.id == "too-large"]
    assert len(error.vcpus) == 2000 - validating.MOST_SHAPES


def test_notes_on_the_file_stand_there_once() -> None:
    """Not once a vCPU."""
    assert len(validate(taken("cortex-a57", vcpus=3)).not_judged) == 1


def test_vcpus_without_registers() -> None:
    """Several vCPUs, none of which has a register: nothing to compare, and no exception."""
    report = validate(Snapshot("firecracker", [VcpuSnapshot(0, {}), VcpuSnapshot(1, {})]))
    assert [finding for finding in report.findings if finding.rule.id == "vcpus-differ"] == []
