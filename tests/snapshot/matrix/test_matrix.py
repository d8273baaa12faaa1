# SPDX-License-Identifier: MIT
"""What a fleet has in common: every host accepts it, and nothing wider."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kvmabi
from kvmabi import regid
from kvmabi.errors import KvmError, UsageError
from kvmabi.kvm import Vcpu
from kvmabi.profiles import host_names, kernel_names
from kvmabi.snapshot.lengths import vls_of
from kvmabi.snapshot.matrix import blockers, commonlengths
from kvmabi.snapshot.matrix.commonlengths import common
from kvmabi.snapshot.matrix.matrix import Matrix, matrix
from snapshot.streams import stream

FLEETS = st.lists(st.sampled_from(host_names()), min_size=1, max_size=5, unique=True)
KERNELS = st.sampled_from([None, *kernel_names()])
SETS = st.dictionaries(
    st.sampled_from("abcde"),
    st.sets(st.sampled_from([128, 256, 384, 512, 1024, 2048])).map(lambda bits: tuple(sorted(bits))),
    min_size=1,
)
VLS = ("sve_vls", "sme_vls")


@contextmanager
def guest(found: Matrix, host: str, kernel: str | None) -> Iterator[Vcpu]:
    """A vCPU of a host with the features of a matrix's guest, not finalised."""
    with kvmabi.open(host=host, kernel=kernel, checked=False) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init(found.features)
        yield vcpu


def takes(found: Matrix, host: str, kernel: str | None, register: str | int, data: bytes) -> bool:
    """Whether a host accepts a value and then has it."""
    with guest(found, host, kernel) as vcpu:
        try:
            vcpu[register] = data
        except KvmError:
            return False
        return vcpu[register] == data


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(FLEETS, KERNELS)
def test_every_host_accepts_the_guest(hosts: list[str], kernel: str | None) -> None:
    """The widest lengths, and every common value of an ID register, in one VM, on each host."""
    found = matrix(hosts, kernel=kernel)
    for host in hosts:
        with guest(found, host, kernel) as vcpu:
            for name, one in zip(VLS, (found.sve, found.sme), strict=True):
                if one.widest and one.extension in found.features:
                    vcpu[name] = vls_of(one.widest)
                    assert vcpu[name] == vls_of(one.widest)
            for register in found.registers:
                if register.value is not None and host not in register.absent and register.settable[host] != "own":
                    vcpu[register.id] = register.value
            for register in found.registers:
                if register.value is not None and host not in register.absent:
                    assert vcpu.read(register.id) == register.value, register.name


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(FLEETS, KERNELS)
def test_no_wider_lengths(hosts: list[str], kernel: str | None) -> None:
    """Of every set that some host can give, each wider one than the matrix's is refused by another host."""
    found = matrix(hosts, kernel=kernel)
    for name, one in zip(VLS, (found.sve, found.sme), strict=True):
        if one.extension not in found.features:
            continue
        sets = {tuple(bits for bits in have or () if bits <= top) for have in one.sets.values() for top in have or ()}
        for wider in sets:
            if max(wider) > max(one.widest, default=0):
                assert not all(takes(found, host, kernel, name, vls_of(wider)) for host in hosts), wider


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(FLEETS, KERNELS, st.data())
def test_no_wider_field(hosts: list[str], kernel: str | None, data: st.DataObject) -> None:
    """A field that promises more than the common value, or any value of a field that has none, fails on a host."""
    found = matrix(hosts, kernel=kernel)
    register = data.draw(st.sampled_from([one for one in found.registers if one.differs and not one.absent] or [None]))
    if register is None:
        return
    choice = data.draw(st.sampled_from([choice for choice in register.fields if choice.differs] or [None]))
    if choice is None:
        return
    field = choice.field
    for value in range(field.most + 1):
        if choice.value is not None:  # wider: a VM that has it can be set to the common value
            wider = field.safe(choice.value << field.lsb, value << field.lsb)
            if value == choice.value or not wider:
                continue
        answers = []
        for host in hosts:
            wide = register.values[host] & ~field.mask | value << field.lsb
            own = wide == register.values[host]
            answers.append(own or takes(found, host, kernel, register.id, wide.to_bytes(8, "little")))
        assert not all(answers), (choice.name, value)


@given(SETS)
def test_accepted_sets_are_those_without_problems(sets: dict[str, tuple[int, ...]]) -> None:
    """Every accepted set suits every host, no other prefix of a host's set does, and all are among the shared."""
    found = common("sve", sets)
    prefixes = {tuple(bits for bits in have if bits <= top) for have in sets.values() for top in have}
    assert set(found.accepted) == {bits for bits in prefixes if not found.problems(bits)}
    assert all(set(bits) <= set(found.shared) for bits in found.accepted)
    assert list(found.accepted) == sorted(found.accepted, key=len)


@given(SETS)
def test_problems_name_the_length(sets: dict[str, tuple[int, ...]]) -> None:
    """A host lacks a length of the guest, or has one below its largest that the guest lacks: nothing else breaks it."""
    shared = common("sve", sets).shared
    for problem in commonlengths.common("sve", sets, shared).guest_problems:
        assert problem.extra
        assert problem.bits in sets[problem.host]
        assert problem.bits < max(shared)
        assert problem.bits not in shared


def test_shared_lengths_are_not_always_a_guest() -> None:
    """All hosts share 512, and none but one can give 512 alone."""
    found = matrix(["sme-demo", "sme-sve256-sme512only"], guest_sme=[512])
    assert (found.sme.shared, found.sme.widest) == ((512,), ())
    assert [str(problem) for problem in found.sme.guest_problems] == [
        "sme-demo has 256 bits below the largest length, which cannot be left out"
    ]
    assert "sme" not in found.features
    assert found.refused_guest


def test_equal_hosts_are_migratable() -> None:
    """A host with itself: no template, nothing blocks."""
    found = matrix(["neoverse-v1", "neoverse-v1"])
    assert [member.name for member in found.members] == ["neoverse-v1", "neoverse-v1 (2)"]
    assert found.migratable
    assert not found.template
    assert not found.bound


@pytest.mark.slow
def test_what_blocks_two_cpus() -> None:
    """MIDR_EL1 in both directions, though every other difference can be lowered away or is named."""
    found = matrix(["neoverse-n2", "neoverse-v1"])
    midr = regid.parse("midr_el1")
    (blocker,) = (one for one in found.blockers if midr in one.registers)
    assert blocker.effect == blockers.REFUSED
    assert set(blocker.directions) == {("neoverse-n2", "neoverse-v1"), ("neoverse-v1", "neoverse-n2")}
    assert "KVM_CAP_ARM_WRITABLE_IMP_ID_REGS" in blocker.why
    assert "midr_el1" in found.bound
    assert not found.migratable
    assert not {one.id for one in found.registers if one.value is not None} & {
        id for one in found.blockers for id in one.registers
    }


@pytest.mark.slow
def test_vm_registers_that_one_kernel_lacks() -> None:
    """The kernel decides too: what only one host lists is left at reset there, and refused on the way back."""
    found = matrix(["cortex-a57", stream("k612-q111-a57")])
    assert found.members[1].snapshot is not None
    assert found.members[1].sve_bits == ()
    assert any("kernel is not known" in note for note in found.notes)
    assert all(one.value is not None for one in found.registers if one.name == "id_aa64pfr0_el1")


def test_snapshot_without_sets() -> None:
    """A stream of QEMU has SVE and does not hold its lengths: it is left out of them, and a note says so."""
    found = matrix(["neoverse-v1", stream("k612-q100-sve256")], guest_sve=[128, 256])
    assert found.sve.unknown == ("qemu",)
    assert found.sve.widest == (128, 256)
    assert not found.refused_guest
    assert any("does not hold SVE's set" in note for note in found.notes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hosts": []}, "at least one host"),
        ({"hosts": ["nohost"]}, "no host 'nohost'"),
        ({"hosts": ["sme-demo"], "guest_sve": [100]}, "multiples of 128"),
        ({"hosts": ["sme-demo"], "guest_sme": [4096]}, "multiples of 128"),
        ({"hosts": ["sme-demo", "a64fx"], "features": ["sme"]}, "not every host offers sme: a64fx does not"),
        ({"hosts": ["sme-demo"], "kernel": "linux-1.0"}, "no kernel"),
    ],
)
def test_misuse(arguments: dict[str, object], words: str) -> None:
    """One line each."""
    with pytest.raises(UsageError, match=re.escape(words)):
        matrix(**arguments)  # type: ignore[arg-type]


def test_files(tmp_path: Path) -> None:
    """A host's file is a host; a file of neither kind is refused in one line."""
    path = tmp_path / "mine.toml"
    source = Path(kvmabi.__file__).parent / "profiles/hosts/a64fx.toml"
    path.write_text(source.read_text("utf-8").replace('"a64fx"', '"mine"'), "utf-8")
    assert matrix([path]).members[0].name == "mine"
    for name in ("bad.toml", "bad.json", "bad.bin"):
        (tmp_path / name).write_bytes(b"\x80no")
        with pytest.raises(UsageError, match=re.escape(name)):
            matrix([tmp_path / name])


@pytest.mark.slow
@given(st.lists(st.sampled_from(host_names()), min_size=1, max_size=4, unique=True))
@settings(max_examples=5, deadline=None)
def test_the_picture_is_well_formed(hosts: list[str]) -> None:
    """XML, self-contained; each host's name stands in it, and nothing stands beyond the edges or on another text."""
    root = ET.fromstring(matrix(hosts, guest_sve=[128, 256]).svg())
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert set(hosts) <= {one.text for one in texts}
    rows: dict[str, list[tuple[float, float]]] = {}
    for one in texts:
        x, length = float(one.get("x", 0)), len(one.text or "") * 7.3
        start = x - length / 2 if "m" in (one.get("class") or "").split() else x
        assert 0 <= start <= start + length <= width
        assert float(one.get("y", 0)) <= height
        rows.setdefault(one.get("y", ""), []).append((start, start + length))
    for spans in rows.values():
        ordered = sorted(spans)
        assert all(left[1] <= right[0] for left, right in pairwise(ordered))


@pytest.mark.slow
def test_all_built_in_hosts() -> None:
    """Text and data for the whole set; there is no length that all of them have."""
    found = matrix(host_names())
    assert found.sve.widest == found.sme.widest == ()
    text = found.text()
    assert all(name in text for name in host_names())
    assert max(map(len, text.splitlines())) <= 160
    assert found.as_dict()["migratable"] is False
