# SPDX-License-Identifier: MIT
"""Every rule of the checks: a snapshot that is wrong in exactly one way, and exactly that rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
from taken import taken

from kvmabi import regid, uapi
from kvmabi.profiles import load_host
from kvmabi.snapshot.checks import rules
from kvmabi.snapshot.checks.findings import Finding
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot
from kvmabi.snapshot.target import Target
from kvmabi.snapshot.validate import validate

HOST = "sme-sve256-sme512-nofa64"
HERE = Target.of(host=HOST)
QEMU = frozenset({Fact.ORDER, Fact.LONG_Z, Fact.VECTOR_LENGTHS})


def snapshot(
    host: str = HOST, kernel: str | None = None, *, svcr: int = 0, vcpus: int = 1, **lengths: bytes
) -> Snapshot:
    """A clean snapshot of a format that does not keep the order."""
    saved = taken(host, kernel, svcr=svcr, vcpus=vcpus, lengths=lengths, without=["ptrauth_address", "ptrauth_generic"])
    saved.unknown = frozenset({Fact.ORDER})
    return saved


def put(saved: Snapshot, name: str | int, value: bytes | int, vcpu: int = -1) -> Snapshot:
    """The snapshot with another value of a register."""
    id = regid.parse(name) if isinstance(name, str) else name
    size = 1 << (id >> uapi.KVM_REG_SIZE_SHIFT & 0xF)
    data = value.to_bytes(size, "little") if isinstance(value, int) else value
    saved.vcpus[vcpu].registers[id] = data
    return saved


def drop(saved: Snapshot, *names: str) -> Snapshot:
    """The snapshot without some registers."""
    for name in names:
        del saved.vcpus[0].registers[regid.parse(name)]
    return saved


def as_format(saved: Snapshot, format: str, *, lacks: frozenset[Fact] = frozenset()) -> Snapshot:
    """The snapshot as another format would hold it."""
    saved.format, saved.unknown = format, lacks
    return saved


def last(saved: Snapshot, name: str) -> Snapshot:
    """The snapshot with one register stored last."""
    id = regid.parse(name)
    registers = saved.vcpus[0].registers
    registers[id] = registers.pop(id)
    return saved


def first(saved: Snapshot, *names: str) -> Snapshot:
    """The snapshot with some registers stored first."""
    registers = saved.vcpus[0].registers
    front = {regid.parse(name): registers[regid.parse(name)] for name in names}
    saved.vcpus[0].registers = front | registers
    return saved


def from_qemu(host: str = HOST, *, svcr: int = 0) -> Snapshot:
    """A snapshot without lengths, as QEMU's."""
    saved = snapshot(host, svcr=svcr)
    return as_format(drop(saved, *(name for name in ("sve_vls", "sme_vls") if _has(saved, name))), "qemu", lacks=QEMU)


def _has(saved: Snapshot, name: str) -> bool:
    return regid.parse(name) in saved.vcpus[0].registers


def exchanged(saved: Snapshot) -> Snapshot:
    """The snapshot with the values of the timer's pair exchanged."""
    registers = saved.vcpus[0].registers
    count, compare = map(regid.parse, ("cntvct_el0", "cntv_cval_el0"))
    registers[count], registers[compare] = registers[compare], registers[count]
    return saved


def due_later(saved: Snapshot) -> Snapshot:
    """The snapshot with an enabled timer that is due in the future."""
    put(saved, "cntv_ctl_el0", 1)
    return put(saved, "cntv_cval_el0", saved.vcpus[0].value("cntvct_el0") + (1 << 24))


class Wrong(NamedTuple):
    """A snapshot that breaks a rule, the target, and the registers that the finding must name ("": any)."""

    make: Callable[[], Snapshot]
    names: str = ""
    target: Target | None = HERE


def tcg(saved: Snapshot) -> Snapshot:
    """The snapshot as a stream of TCG."""
    saved.origin, saved.features = Origin.TCG, None
    return saved


def rows(saved: Snapshot, count: int) -> Snapshot:
    """The snapshot with ``count`` rows of ZA, none of them zero."""
    for row in range(count):
        put(saved, f"za.h[{row}]", b"\1" + bytes(255))
    return saved


def without(saved: Snapshot, name: str) -> Snapshot:
    """The snapshot without a register."""
    for vcpu in saved.vcpus:
        vcpu.registers.pop(regid.parse(name))
    return saved


def without_bitmaps() -> Snapshot:
    """A snapshot as crosvm's, which drops the bitmaps."""
    names = ("std_bmap", "std_hyp_bmap", "vendor_hyp_bmap", "vendor_hyp_bmap_2")
    return as_format(drop(snapshot(), *names), "crosvm", lacks=frozenset({Fact.FIRMWARE_BITMAPS, Fact.ORDER}))


def without_z() -> Snapshot:
    """A snapshot of a format that has no place for Z."""
    saved = drop(snapshot("neoverse-v1"), *(f"z{n}" for n in range(32)), *(f"p{n}" for n in range(16)), "ffr")
    return as_format(saved, "crosvm", lacks=frozenset({Fact.SVE, Fact.ORDER}))


V1, A57 = Target.of(host="neoverse-v1"), Target.of(host="cortex-a57")
WIDE_FPSR = regid.parse("fpsr") & ~uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_SIZE_U64
SHORT = replace(load_host(HOST), name="short", sme_vector_bits=(128, 256))

BROKEN: dict[str, list[Wrong]] = {
    "wrong-size": [
        Wrong(lambda: put(snapshot(), "x3", bytes(4)), "x3"),
        Wrong(lambda: put(snapshot(), "sve_vls", b"\3"), "sve_vls", None),
        Wrong(lambda: put(snapshot(), "z4", bytes(257)), "z4"),
    ],
    "register-width": [
        Wrong(lambda: drop(put(snapshot(), WIDE_FPSR, 0), "fpsr"), f"{WIDE_FPSR:#018x}"),
        Wrong(lambda: drop(put(snapshot(), WIDE_FPSR, 0), "fpsr"), f"{WIDE_FPSR:#018x}", None),
    ],
    "bad-id": [
        Wrong(lambda: put(snapshot(), 0x4030000000100000, 0)),
        Wrong(lambda: put(snapshot(), 0x30000000100000, 0)),
    ],
    "unknown-register": [Wrong(lambda: put(snapshot(), "s3_7_c15_c15_7", 1), "s3_7_c15_c15_7", None)],
    "svcr-reserved": [
        Wrong(lambda: put(snapshot(), "svcr", 4), "svcr"),
        Wrong(lambda: put(snapshot(svcr=3), "svcr", 1 << 63 | 3), "svcr", None),
    ],
    "za-while-off": [
        Wrong(lambda: put(snapshot(svcr=1), "za.h[7]", bytes(256)), "za.h[7]"),
        Wrong(lambda: put(snapshot(), "zt0", bytes(64)), "zt0", None),
    ],
    "za-missing": [
        Wrong(lambda: drop(snapshot(svcr=2), "za.h[63]"), "za.h[63]"),
        Wrong(lambda: drop(snapshot(svcr=3), "zt0"), "zt0", None),
        Wrong(lambda: put(snapshot(svcr=0), "svcr", 2), "za.h[0-63] zt0"),
    ],
    "vectors-missing": [
        Wrong(lambda: drop(snapshot(), "z3", "p1"), "z3 p1"),
        Wrong(lambda: drop(snapshot(), "ffr"), "ffr", None),
        Wrong(lambda: drop(snapshot("neoverse-v1"), "z0"), "z0", V1),
    ],
    "v-on-sve": [
        Wrong(lambda: put(snapshot(), "v3", bytes(16)), "v3"),
        Wrong(lambda: put(as_format(snapshot(), "cloud-hypervisor", lacks=QEMU), "v3", b"\1" * 16), "v3", None),
        Wrong(lambda: put(snapshot("neoverse-v1"), "v0", bytes(16)), "v0", V1),
    ],
    "z-without-sve": [
        Wrong(lambda: put(snapshot("cortex-a57"), "z1", bytes(256)), "z1", A57),
        Wrong(lambda: put(snapshot("sme-nosve-sme512"), "p1", bytes(32)), "p1", None),
    ],
    "ffr-in-streaming": [
        Wrong(lambda: put(snapshot(svcr=1), "ffr", bytes(32)), "ffr", target) for target in (HERE, None)
    ],
    "beyond-length": [
        Wrong(lambda: put(snapshot(), "z0", bytes(100) + b"\1" * 156), "z0"),
        Wrong(lambda: put(snapshot(), "ffr", bytes(31) + b"\x80"), "ffr", None),
        Wrong(lambda: put(snapshot(svcr=2), "za.h[63]", bytes(64) + b"\1" + bytes(191)), "za.h[63]"),
        Wrong(
            lambda: put(from_qemu(), "p3", bytes(9) + b"\1" + bytes(22)),
            "p3",
            Target.of(host=HOST, sve_bits=[128, 256]),
        ),
    ],
    "other-mode-length": [
        Wrong(lambda: put(snapshot(), "z31", bytes(40) + b"\1" + bytes(215)), "z31"),
        Wrong(lambda: put(snapshot(), "p0", bytes(7) + b"\1" + bytes(24)), "p0", None),
    ],
    "beyond-target": [
        Wrong(lambda: put(from_qemu(svcr=3), "za.h[64]", b"\1" + bytes(255)), "za.h[64]"),
        Wrong(lambda: put(from_qemu(svcr=3), "z9", bytes(32) + b"\1" + bytes(223)), "z9", Target.of(host=SHORT)),
        Wrong(lambda: tcg(put(from_qemu(svcr=2), "za.h[33]", b"\1" + bytes(255))), "za.h[33]", Target.of(host=SHORT)),
    ],
    "long-z-lost": [
        Wrong(lambda: put(from_qemu("qemu-max"), "p2", bytes(16) + b"\1" + bytes(15)), "z0-31", None),
        Wrong(lambda: from_qemu("qemu-max"), "z0-31", Target.of(sve_bits=range(128, 2049, 128))),
        Wrong(lambda: tcg(rows(from_qemu(svcr=3), 129)), "z0-31", None),
    ],
    "length-implied": [Wrong(lambda: put(from_qemu("neoverse-v1"), "z2", bytes(17) + b"\1" + bytes(238)), "z2", V1)],
    "lengths-refused": [
        Wrong(lambda: put(snapshot(), "sme_vls", 0b1001), "sme_vls"),
        Wrong(lambda: from_qemu("neoverse-v1"), "sve_vls", Target.of(host="neoverse-v1", sve_bits=[128, 256, 512])),
    ],
    "lengths-truncated": [
        Wrong(lambda: snapshot(sve_vls=b"\1" + bytes(63)), "sve_vls"),
        Wrong(lambda: from_qemu("neoverse-v1"), "sve_vls", Target.of(host="neoverse-v1", sve_bits=[128])),
    ],
    "lengths-differ": [
        Wrong(snapshot, "sme_vls", Target.of(host=HOST, sme_bits=[128, 256])),
        Wrong(lambda: from_qemu("neoverse-v1"), "z0-31 p0-15 ffr", Target.of(sve_bits=[])),
        Wrong(lambda: snapshot("neoverse-v1"), "sve_vls z0-31 p0-15 ffr", Target.of(sve_bits=[])),
        Wrong(lambda: rows(from_qemu(svcr=2), 64), "za.h[0-63] zt0", Target.of(sme_bits=[])),
    ],
    "lengths-impossible": [
        Wrong(lambda: put(snapshot(), "sve_vls", 0b10), "sve_vls", None),
        Wrong(lambda: put(snapshot(), "sme_vls", 0b111), "sme_vls", None),
        Wrong(lambda: from_qemu("neoverse-v1"), "sve_vls", Target.of(sve_bits=[256, 512])),
        Wrong(lambda: from_qemu(), "sme_vls", Target.of(sme_bits=[384])),
    ],
    "vls-missing": [
        Wrong(lambda: drop(snapshot(), "sme_vls"), "sme_vls"),
        Wrong(lambda: drop(snapshot(), "sve_vls"), "sve_vls", None),
        Wrong(lambda: put(snapshot("neoverse-v1"), "sve_vls", 0), "sve_vls", None),
    ],
    "features-mismatch": [
        Wrong(snapshot, "", Target.of(features=["sve", "sme", "psci_0_2"])),
        Wrong(lambda: snapshot("cortex-a57"), "", Target.of(features=["psci_0_2", "pmu_v3", "ptrauth"])),
    ],
    "features-refused": [
        Wrong(
            lambda: snapshot("cortex-a57", "linux-7.2"),
            "",
            Target.of(host="cortex-a57", kernel="linux-7.2", features=["psci", "pmu", "pmu_v3_strict"]),
        )
    ],
    "register-refused": [
        Wrong(
            lambda: snapshot("cortex-a57", "linux-7.3"), "pmmir_el1", Target.of(host="cortex-a57", kernel="linux-7.2")
        ),
        Wrong(lambda: snapshot("cortex-a57", "linux-7.3"), "pmmir_el1", Target.of(kernel="linux-7.2")),
        Wrong(lambda: put(snapshot(), "s3_7_c15_c15_7", 1), "s3_7_c15_c15_7"),
    ],
    "left-at-reset": [
        Wrong(lambda: drop(snapshot(), "x5", "sctlr_el1"), "x5 sctlr_el1"),
        Wrong(
            lambda: snapshot("cortex-a57", "linux-7.2"), "pmmir_el1", Target.of(host="cortex-a57", kernel="linux-7.3")
        ),
    ],
    "value-refused": [
        Wrong(lambda: put(snapshot(), "psci_version", 0x20000), "psci_version"),
        Wrong(lambda: put(snapshot(), "pstate", 0x3CD), "pstate"),
        Wrong(lambda: put(snapshot(), "std_bmap", 0x100), "std_bmap"),
    ],
    "id-field": [
        Wrong(lambda: put(snapshot(), "id_aa64isar0_el1", (1 << 64) - 1), "id_aa64isar0_el1"),
        Wrong(lambda: put(snapshot(), "ctr_el0", 0), "ctr_el0"),
    ],
    "host-bound": [
        Wrong(lambda: put(snapshot(), "midr_el1", 0x411FD070), "midr_el1"),
        Wrong(
            lambda: put(snapshot("cortex-a57", "linux-6.1"), "ccsidr[0]", 0x1234),
            "ccsidr[0]",
            Target.of(host="cortex-a57", kernel="linux-6.1"),
        ),
    ],
    "vcpus-differ": [
        Wrong(lambda: put(snapshot(vcpus=2), "id_aa64isar0_el1", 0), "id_aa64isar0_el1"),
        Wrong(lambda: put(snapshot(vcpus=3), "ccsidr[0]", 7), "ccsidr[0]", None),
    ],
    "timer-pair": [
        Wrong(lambda: exchanged(snapshot()), "cntvct_el0 cntv_cval_el0"),
        Wrong(lambda: exchanged(due_later(snapshot())), "cntvct_el0 cntv_cval_el0", None),
        Wrong(lambda: put(due_later(snapshot()), "cntv_ctl_el0", 5), "cntvct_el0 cntv_cval_el0", None),
    ],
    "svcr-missing": [
        Wrong(lambda: without(snapshot(svcr=2), "svcr"), "za.h[0-63] zt0"),
        Wrong(lambda: without(snapshot(svcr=2), "svcr"), "za.h[0-63] zt0", None),
    ],
    "order-svcr": [
        Wrong(
            lambda: as_format(first(snapshot(svcr=2), "sme_vls", "sve_vls"), "cloud-hypervisor"), "svcr za.h[0-63] zt0"
        ),
    ],
    "order-lengths": [Wrong(lambda: as_format(last(snapshot(), "sve_vls"), "cloud-hypervisor"), "sve_vls sme_vls")],
    "order-finalize": [
        Wrong(lambda: as_format(first(snapshot(svcr=3), "sme_vls", "sve_vls", "svcr"), "firecracker"), "sme_vls"),
    ],
    "order-apart": [
        Wrong(lambda: as_format(snapshot("neoverse-v1"), "firecracker"), "sve_vls", V1),
        Wrong(lambda: as_format(last(snapshot("neoverse-v1"), "sve_vls"), "firecracker"), "sve_vls", V1),
    ],
    "order-stored": [Wrong(lambda: as_format(first(snapshot(svcr=1), "sve_vls", "sme_vls"), "text"), "")],
    "order-planned": [Wrong(lambda: as_format(first(snapshot(svcr=1), "sve_vls", "sme_vls"), "kvmabi"), "")],
    "vectors-lost": [Wrong(without_z, "", V1), Wrong(without_z, "", None)],
    "bitmaps-lost": [Wrong(without_bitmaps)],
    "tcg-stream": [Wrong(lambda: tcg(snapshot("cortex-a57")))],
    "no-vcpu": [Wrong(lambda: Snapshot("text", []))],
    "not-judged": [Wrong(snapshot, "", None)],
}
CASES = [(rule, number) for rule, wrongs in BROKEN.items() for number in range(len(wrongs))]


def others(found: list[Finding], rule: str) -> set[str]:
    """The rules of the other findings: notes do not count."""
    return {finding.rule.id for finding in found if finding.rule.id != rule and finding.severity != rules.Severity.NOTE}


@pytest.mark.parametrize(("rule", "number"), CASES)
def test_exactly_that_rule(rule: str, number: int) -> None:
    """One thing is wrong, and one rule says so, with the registers concerned."""
    wrong = BROKEN[rule][number]
    report = validate(wrong.make(), wrong.target)
    found = [finding for finding in report.findings if finding.rule.id == rule]
    assert found, str(report)
    assert others(report.findings, rule) == set(), str(report)
    if wrong.names:
        assert wrong.names in [finding.names for finding in found], str(report)


def test_every_rule_of_the_checks_is_tested() -> None:
    """A rule that no check reports is one that readers report."""
    readers = {
        *(
            "malformed",
            "truncated",
            "bad-crc",
            "description-mismatch",
            "duplicate-register",
            "unknown-format",
            "too-large",
        ),
        *("empty", "encrypted", "incomplete", "unsupported", "old-version", "unreadable", "not-arm64", "description"),
        *("foreign-architecture", "foreign-hypervisor", "footer", "trailing-bytes", "domain-xml", "unknown-subsection"),
        *("missing-subsection", "value-too-wide", "fpscr-twice", "aarch32-state", "duplicate-vcpu", "missing-vcpu"),
        "v-on-sve-vcpu",
    }
    assert rules.rules().keys() - readers == BROKEN.keys()


def test_v_that_a_struct_holds_is_no_error() -> None:
    """cloud-hypervisor's and crosvm's V are zero on a vCPU with SVE; the same in a list is refused."""
    for format, rule in (("cloud-hypervisor", set()), ("crosvm", set()), ("text", {"v-on-sve"})):
        saved = as_format(put(snapshot("neoverse-v1"), "v3", bytes(16)), format, lacks=frozenset({Fact.ORDER}))
        assert others(validate(saved, V1).findings, "") == rule


def test_room_of_the_format_is_no_error() -> None:
    """QEMU's stream has 256 rows of ZA whatever the length: those that are zero are not refused."""
    saved = from_qemu(svcr=3)
    for row in range(64, 256):
        put(saved, f"za.h[{row}]", bytes(256))
    assert validate(saved, HERE).is_clean
    saved = as_format(saved, "firecracker", lacks=frozenset({Fact.ORDER}))
    assert others(validate(saved, HERE).findings, "") == {"register-refused", "vls-missing"}


def test_a_register_that_comes_and_goes_is_explained() -> None:
    """Which kernels list it, since when and why, and which VMM tolerates the difference."""
    (error,) = validate(snapshot("cortex-a57", "linux-6.12"), Target.of(host="cortex-a57", kernel="linux-7.3")).errors[
        :1
    ]
    assert error.rule.id == "register-refused"
    assert "tcr2_el1" in error.names
    for words in ("listed by linux-6.12", "not by linux-6.1", "from 6.13 on only where", "tolerated by QEMU 11.1"):
        assert words in error.text


def test_a_bitmap_is_tolerated_only_if_it_is_zero() -> None:
    """QEMU 11.1 tolerates VENDOR_HYP_BMAP_2 in the stream with the value 0."""
    target = Target.of(host="cortex-a57", kernel="linux-6.12")
    for value, tolerated in ((0, True), (1, False)):
        saved = put(snapshot("cortex-a57", "linux-7.2"), "vendor_hyp_bmap_2", value)
        texts = [found.text for found in validate(saved, target).errors if found.names == "vendor_hyp_bmap_2"]
        assert ["tolerated by QEMU" in text for text in texts] == [tolerated]


def test_fields_of_id_registers_are_named() -> None:
    """The field, both values and the rule, in the text and as data."""
    saved = snapshot("cortex-a57")
    value = saved.vcpus[0].value("id_aa64pfr0_el1")
    put(saved, "id_aa64pfr0_el1", value & ~(0xF << 56) | 3 << 56)
    (error,) = validate(saved, A57).errors
    assert error.text.startswith("CSV2 (bits 59:56): the file has 0x3, the target 0x")
    assert "FTR_LOWER_SAFE" in error.text
    (detail,) = error.details
    assert (detail["field"], detail["bits"], detail["file"], detail["rule"]) == (
        "CSV2",
        "bits 59:56",
        3,
        "FTR_LOWER_SAFE",
    )


def test_lower_values_of_id_registers_are_fine() -> None:
    """FTR_LOWER_SAFE: a guest may be promised less than the host has."""
    assert validate(put(snapshot(), "id_aa64isar0_el1", 0), HERE).is_clean


def test_a_host_without_the_features_is_judged_by_the_rest() -> None:
    """INIT fails there; what else does not fit is reported all the same, but not the registers of lost features."""
    report = validate(snapshot("neoverse-v1"), A57)
    assert {finding.rule.id for finding in report.errors} == {
        *("features-refused", "host-bound", "id-field", "value-refused")
    }
    (refused,) = [finding for finding in report.errors if finding.rule.id == "features-refused"]
    assert refused.text.endswith("this host has no sve")


def test_tcg_is_judged_by_values_only() -> None:
    """The list of a TCG stream is no kernel's; reserved bits of svcr are wrong all the same."""
    saved = tcg(put(put(snapshot(), "svcr", 4), 0x40200000200E0298, 0))
    assert others(validate(saved, HERE).findings, "") == {"svcr-reserved"}
    assert "svcr-reserved" in {finding.rule.id for finding in validate(saved).errors}


def test_ffr_of_zero_in_a_tcg_stream_is_a_field_of_the_format() -> None:
    """QEMU's section sve always has FFR; a value in it is a mistake in streaming mode without FA64."""
    for value, rule in ((0, set()), (1, {"ffr-in-streaming"})):
        assert others(validate(tcg(put(snapshot(svcr=1), "ffr", value))).findings, "") == rule


def test_implied_lengths() -> None:
    """A byte of Z, of P, and the number and content of ZA's rows."""
    for name, data, kind, bits in (
        ("z1", bytes(31) + b"\1" + bytes(224), "sme", 256),
        ("p1", bytes(4) + b"\1" + bytes(27), "sme", 384),
        ("za.h[48]", b"\1" + bytes(255), "sme", 512),
        ("za.h[0]", bytes(63) + b"\1" + bytes(192), "sme", 512),
    ):
        report = validate(put(from_qemu(svcr=3), name, data), HERE)
        (note,) = [finding for finding in report.findings if finding.rule.id == "length-implied"]
        assert note.details == ({"kind": kind, "least_bits": bits},)


def test_timers_that_run_are_fine() -> None:
    """A timer that is due, one that is not, and one that is disabled."""
    for saved in (snapshot(), due_later(snapshot())):
        assert "timer-pair" not in {finding.rule.id for finding in validate(saved).findings}
