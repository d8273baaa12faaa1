# SPDX-License-Identifier: MIT
"""kvmabi's own format: what is written is what is read, the definition and the reader agree, damage is named."""

from __future__ import annotations

import io
import json
import lzma
import random
import runpy
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kvmabi
from kvmabi import UsageError, regid
from kvmabi.model.row import size_of
from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import json_, own, own_layout
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob, Source
from snapshot.states import Machine, any_machine

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parents[1] / "data"
MODES = range(4)
FIELDS = (
    *("vcpus", "origin", "features", "target", "host", "kernel", "sve_bits", "sme_bits"),
    *("unknown", "facts", "devices"),
)
NAMES = ("x0", "pc", "svcr", "v3", "z0", "z31", "p7", "ffr", "za.h[0]", "za.h[255]", "zt0", "fpsr", "sve_vls", "z3[1]")


def fields(snapshot: Snapshot) -> dict[str, object]:
    """All that the format holds."""
    return {name: getattr(snapshot, name) for name in FIELDS}


@st.composite
def payloads(draw: st.DrawFn, id: int) -> bytes:
    """A register's bytes: zero beyond some length, full, or of a wrong size."""
    size_bytes = size_of(id)
    kind = draw(st.sampled_from(("short", "full", "odd")))
    if kind == "odd":
        return draw(st.binary(max_size=40))
    used = draw(st.sampled_from((0, 1, 2, 16, 32, 33, 64, 256))) if kind == "short" else size_bytes
    return random.Random(draw(st.integers(0, 99))).randbytes(min(used, size_bytes)).ljust(size_bytes, b"\0")


@st.composite
def vcpus(draw: st.DrawFn, index: int) -> VcpuSnapshot:
    """A vCPU with any registers."""
    known = st.sampled_from(NAMES).map(regid.parse)
    ids = draw(st.lists(st.one_of(known, st.integers(0, (1 << 64) - 1)), max_size=12, unique=True))
    return VcpuSnapshot(
        index,
        {id: draw(payloads(id)) for id in ids},
        draw(st.none() | st.integers(0, 12)),
        draw(st.none() | st.tuples(st.booleans(), st.booleans(), st.integers(0, (1 << 64) - 1))),
        facts=draw(st.dictionaries(st.text(max_size=4), st.none() | st.integers() | st.text(max_size=4), max_size=2)),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Snapshots as any reader may make them, strange ones among them."""
    lengths = st.none() | st.lists(st.sampled_from((128, 256, 512, 384, 2048, 65536)), max_size=3).map(tuple)
    return Snapshot(
        "any",
        [draw(vcpus(index)) for index in range(draw(st.integers(0, 3)))],
        draw(st.sampled_from(Origin)),
        features=draw(st.none() | st.frozensets(st.sampled_from(("sve", "sme", "pmu_v3")))),
        target=draw(st.none() | st.integers(0, 9)),
        host=draw(st.text(max_size=9)),
        kernel=draw(st.text(max_size=9)),
        sve_bits=draw(lengths),
        sme_bits=draw(lengths),
        unknown=draw(st.frozensets(st.sampled_from(Fact))),
        facts=draw(st.dictionaries(st.text(max_size=4), st.lists(st.floats(allow_nan=False), max_size=2), max_size=2)),
        devices=draw(st.lists(st.dictionaries(st.text(max_size=4), st.integers(), max_size=2), max_size=2)),
    )


def machine_snapshot(svcr: int = 3, vcpu_count: int = 1) -> Snapshot:
    """A saved VM of the demo's host in a mode."""
    machine = Machine("sme-demo", "sme-v12", frozenset({"sve", "sme", "psci_0_2"}), (svcr,) * vcpu_count, 1, svcr)
    with machine.open() as kvm:
        return kvmabi.save(machine.create(kvm))


@pytest.mark.slow
@given(snapshots())
def test_all_that_matters_survives(snapshot: Snapshot) -> None:
    """Every field of any snapshot is the same after a round trip, and the file has nothing to complain of."""
    again = opening.read_bytes(own.write(snapshot))
    assert fields(again) == fields(snapshot)
    assert [list(vcpu.registers) for vcpu in again.vcpus] == [list(vcpu.registers) for vcpu in snapshot.vcpus]
    assert (again.format, again.problems) == ("kvmabi", [])


@pytest.mark.slow
@settings(max_examples=60)
@given(snapshots())
def test_definition_and_reader_agree(snapshot: Snapshot) -> None:
    """What the definition parses is what the reader reads, and it builds the very bytes that the writer writes."""
    blob = own.write(snapshot)
    parsed = own_layout.FILE.parse(blob)
    assert own_layout.FILE.build(parsed) == blob
    assert parsed.header.body.value.description.host == snapshot.host
    for record, vcpu in zip(parsed.vcpus, opening.read_bytes(blob).vcpus, strict=True):
        body = record.body.value
        exceptions = {exception.place for exception in body.exceptions}
        values = [
            value.data if place in exceptions else value.data.ljust(size_of(id), b"\0")
            for place, (id, value) in enumerate(zip(body.ids, body["values"], strict=True))
        ]
        assert dict(zip(body.ids, values, strict=True)) == vcpu.registers
        assert body.head.index == vcpu.index


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(any_machine())
def test_save_blob_restore(machine: Machine) -> None:
    """A VM that was saved, written, read and restored is the one that it was."""
    with machine.open() as kvm:
        saved = kvmabi.save(machine.create(kvm))
        read = opening.read_bytes(own.write(saved))
        assert fields(read) == fields(saved)
        vm = kvm.create_vm()
        kvmabi.restore(read, vm)
        assert [finding for finding in kvm.findings() if finding.vm == vm.number] == []


def test_only_valid_bytes_are_stored() -> None:
    """Z at the length of the mode, rows of ZA at SME's, P an eighth of Z; everything else as it is."""
    for svcr, z_bytes in ((0, 32), (3, 64)):
        snapshot = machine_snapshot(svcr)
        vcpu = snapshot.vcpus[0]
        parsed = own_layout.FILE.parse(own.write(snapshot)).vcpus[0].body.value
        assert (parsed.shape.z_bytes, parsed.shape.za_bytes, list(parsed.exceptions)) == (z_bytes, 64, [])
        sizes = {regid.name_of(id): len(value.data) for id, value in zip(parsed.ids, parsed["values"], strict=True)}
        assert (sizes["z0"], sizes["p0"], sizes["ffr"]) == (z_bytes, z_bytes // 8, z_bytes // 8)
        assert sizes.get("za.h[0]") == (64 if svcr else None)
        assert len(sizes) == len(vcpu.registers)


def test_places_of_registers() -> None:
    """The place of each register in the file is where its valid bytes are."""
    blob = own.write(machine_snapshot(3, 2))
    for vcpu in opening.read_bytes(blob).vcpus:
        assert vcpu.places.keys() == vcpu.registers.keys()
        for id, data in vcpu.registers.items():
            stored = data.rstrip(b"\0")
            assert blob[vcpu.places[id] :].startswith(stored)


@pytest.mark.parametrize("svcr", MODES)
def test_samples_of_version_1(svcr: int) -> None:
    """Files of version 1 are read for ever: one of each mode against its truth."""
    snapshot = opening.read(DATA / f"own-v1-svcr{svcr}.blob.xz")
    truth = json.loads(lzma.decompress((DATA / f"own-v1-svcr{svcr}.truth.json.xz").read_bytes()))
    assert snapshot.problems == []
    assert plain(snapshot) == truth
    assert snapshot.vcpus[0].svcr == svcr


def plain(snapshot: Snapshot) -> dict[str, object]:
    """A snapshot as the truth of samples has it."""
    return {
        **{name: getattr(snapshot, name) for name in ("target", "host", "kernel", "facts", "devices")},
        "origin": snapshot.origin.name,
        "features": sorted(snapshot.features or ()),
        "sve_bits": list(snapshot.sve_bits or ()),
        "sme_bits": list(snapshot.sme_bits or ()),
        "unknown": sorted(fact.name for fact in snapshot.unknown),
        "vcpus": [
            {
                "index": vcpu.index,
                "mp_state": vcpu.mp_state,
                "serror": list(vcpu.serror or ()),
                "facts": vcpu.facts,
                "registers": [[f"{id:#018x}", data.hex()] for id, data in vcpu.registers.items()],
            }
            for vcpu in snapshot.vcpus
        ],
    }


def test_a_flipped_bit_is_named() -> None:
    """Wrong CRCs of the header and of a vCPU are problems with their places; all vCPUs are there all the same."""
    blob = bytearray(own.write(machine_snapshot(3, 2)))
    places = [place for place in range(len(blob)) if blob.startswith(b"VCPU", place)]
    blob[places[0] - 1] ^= 1
    blob[places[1] - 6] ^= 0x80
    snapshot = opening.read_bytes(bytes(blob))
    assert [(problem.rule, problem.offset, problem.vcpu) for problem in snapshot.problems] == [
        ("bad-crc", 0, None),
        ("bad-crc", places[0], 0),
    ]
    assert len(snapshot.vcpus) == 2


def test_damage_behind_the_first_vcpu() -> None:
    """What was read before a truncation stays, and the truncation is a problem; bytes at the end are one, too."""
    blob = own.write(machine_snapshot(0, 2))
    short = opening.read_bytes(blob[:-100])
    assert ([vcpu.index for vcpu in short.vcpus], [problem.rule for problem in short.problems]) == ([0], ["truncated"])
    long = opening.read_bytes(blob + b"\0")
    assert [problem.rule for problem in long.problems] == ["trailing-bytes"]


def test_later_versions_are_refused() -> None:
    """A version that this reader does not know is named, not guessed at."""
    blob = bytearray(own.write(machine_snapshot()))
    blob[8] = 2
    with pytest.raises(BadBlob, match="version 2") as refused:
        opening.read_bytes(bytes(blob))
    assert refused.value.rule == "unsupported"


def with_crc(body: bytes) -> bytes:
    """A header or record with its CRC."""
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize("write", [own.write, lambda snapshot: json.dumps(json_.document(snapshot)).encode()])
def test_lengths_that_no_vcpu_has_are_unknown(write: Callable[[Snapshot], bytes]) -> None:
    """A length that is not a multiple of 128 bits is a problem of the file, not a length to calculate with."""
    blob = write(Snapshot("model", [VcpuSnapshot(0, {regid.parse("x0"): bytes(8)})], sve_bits=(100,), sme_bits=(128,)))
    read = opening.read_bytes(blob)
    assert (read.sve_bits, read.sme_bits) == (None, (128,))
    assert [problem.text for problem in read.problems] == ["sve_bits is not a list of vector lengths"]


def test_same_register_and_same_vcpu_twice() -> None:
    """Both are problems, and are read."""
    vcpu = VcpuSnapshot(0, {regid.parse("x0"): bytes(8), regid.parse("x1"): bytes(8)})
    blob = own.write(Snapshot("any", [vcpu, vcpu]))
    assert [problem.rule for problem in opening.read_bytes(blob).problems] == ["duplicate-vcpu"]
    header, record = blob[: blob.index(b"VCPU")], blob[blob.rindex(b"VCPU") :]
    ids = record.replace(regid.parse("x1").to_bytes(8, "little"), regid.parse("x0").to_bytes(8, "little"))
    twice = opening.read_bytes(header + with_crc(ids[:-4]) + record)
    assert [problem.rule for problem in twice.problems] == ["duplicate-register", "duplicate-vcpu"]


def test_a_reader_needs_memory_for_one_vcpu() -> None:
    """64 vCPUs, read one by one, need no more than a few."""
    one = machine_snapshot(3)
    many = Snapshot("any", [VcpuSnapshot(index, one.vcpus[0].registers) for index in range(64)])
    blob = own.write(many)
    tracemalloc.start()
    try:
        count = sum(1 for _ in own.Reader(Source("blob", io.BytesIO(blob))))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 64
    assert peak_bytes - len(blob) < 1 << 20


def attempt(blob: bytes) -> None:
    """A read that ends well, or with BadBlob."""
    try:
        snapshot = opening.read_bytes(blob)
    except BadBlob:
        return
    for vcpu in snapshot.vcpus:
        assert vcpu.places is not None


@pytest.mark.slow
def test_every_truncation() -> None:
    """A file that ends anywhere is refused, or is read with a problem."""
    vcpu = VcpuSnapshot(0, dict(list(machine_snapshot(3).vcpus[0].registers.items())[::9]))
    blob = own.write(Snapshot("any", [vcpu, VcpuSnapshot(1, vcpu.registers)], facts={"machine": [1, 2, {}]}))
    for size_bytes in range(len(blob)):
        with suppress(BadBlob):
            assert opening.read_bytes(blob[:size_bytes]).problems


@pytest.mark.slow
def test_random_mutations() -> None:
    """Flipped bits, numbers at their limits, pieces that are cut out or doubled: never another exception."""
    rng, blob = random.Random(1), own.write(machine_snapshot(3, 2))
    for _ in range(3000):
        attempt(mutated(rng, blob))


def mutated(rng: random.Random, blob: bytes) -> bytes:
    """The blob with some damage, most of it near the beginning of a record, where the sizes are."""
    data = bytearray(blob)
    for _ in range(rng.randint(1, 4)):
        start = rng.choice((0, blob.index(b"VCPU"), blob.rindex(b"VCPU")))
        at = min(start + rng.choice((rng.randrange(60), rng.randrange(4000))), len(data) - 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\0\0\0\x80", b"\0\1\0\0"))
        elif kind == 2:
            del data[at : at + rng.randint(1, 40)]
        else:
            data[at:at] = data[at : at + rng.randint(1, 40)]
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 256, own.MOST_REGISTERS])
def test_what_unpacks_to_most(count: int) -> None:
    """A file of 1 MiB whose records hold as little as possible needs less than 48 MiB and 2 s."""
    za = regid.parse("za.h[0]")
    ids = b"".join((za | n % 256 << 5).to_bytes(8, "little") for n in range(count))
    content = ids + bytes(16 * count)
    head = own_layout.VCPU_STRUCT.pack(b"VCPU", len(content), 0, 0, 0, 0, 0)
    record = with_crc(head + own_layout.SHAPE_STRUCT.pack(16, 16, count, 0) + content)
    header = own.write(Snapshot("any", [VcpuSnapshot(n, {}) for n in range(own.MOST_VCPUS)])).partition(b"VCPU")[0]
    blob = (header + record * ((1 << 20) // len(record)))[: 1 << 20]
    started = time.process_time()
    tracemalloc.start()
    try:
        attempt(blob)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 48 << 20
    assert time.process_time() - started < 10  # tracemalloc slows it down


def test_nested_json() -> None:
    """Facts that nest without end are a problem, and nothing else is lost."""
    snapshot = Snapshot("any", [VcpuSnapshot(0, {regid.parse("x0"): bytes(8)})], facts={"a": 1})
    blob = own.write(snapshot)
    facts = b"[" * 100_000
    at = blob.index(b'{"a":1}')
    head = bytearray(blob[:at])
    head[20:24] = len(facts).to_bytes(4, "little")
    read = opening.read_bytes(with_crc(bytes(head) + facts + b"[]") + blob[blob.index(b"VCPU") :])
    assert [problem.rule for problem in read.problems] == ["malformed"]
    assert read.facts == {}
    assert len(read.vcpus) == 1


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot("any", [VcpuSnapshot(1 << 32, {})]),
        Snapshot("any", [], host="x" * 70_000),
        Snapshot("any", [], facts={"x": object()}),
        Snapshot("any", [], facts={"x": "y" * (1 << 20)}),
        Snapshot("any", [VcpuSnapshot(0, dict.fromkeys(range(own.MOST_REGISTERS + 1), b""))]),
        Snapshot("any", [VcpuSnapshot(0, {})] * (own.MOST_VCPUS + 1)),
    ],
    ids=["index", "host", "facts", "large facts", "registers", "vcpus"],
)
def test_what_the_format_cannot_hold(snapshot: Snapshot) -> None:
    """It is refused in one sentence; nothing is cut."""
    with pytest.raises(UsageError, match="does not fit"):
        own.write(snapshot)


def test_sets_and_bytes_in_facts() -> None:
    """JSON has neither: they become sorted arrays and hex."""
    read = opening.read_bytes(own.write(Snapshot("any", [], facts={"caps": {"b", "a"}, "uuid": b"\x01\xff"})))
    assert read.facts == {"caps": ["a", "b"], "uuid": "01ff"}


def test_store_replaces_the_whole_file(tmp_path: Path) -> None:
    """The file has the old or the new content, and nothing else is left in its folder."""
    path = tmp_path / "vm.blob"
    path.write_bytes(b"old")
    snapshot = machine_snapshot()
    own.store(snapshot, path)
    assert fields(opening.read(path)) == fields(snapshot)
    with pytest.raises(UsageError):
        own.store(Snapshot("any", [], facts={"x": object()}), path)
    assert fields(opening.read(path)) == fields(snapshot)
    assert list(tmp_path.iterdir()) == [path]


def test_page_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/reference/blob-format.md is what the definition says."""
    monkeypatch.setattr(sys, "argv", ["blob_format.py", "--check"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "scripts/blob_format.py"), run_name="__main__")
    assert stop.value.code == 0, "run scripts/blob_format.py"


def test_a_length_that_no_vector_has_is_damage() -> None:
    """It is a problem and unknown, as in JSON: what is read can be written in either."""
    vcpu = VcpuSnapshot(0, {regid.parse("x0"): bytes(8)})
    snapshot = opening.read_bytes(own.write(Snapshot("kvm", [vcpu], sve_bits=(128, 1 << 20))))
    assert (snapshot.sve_bits, [problem.rule for problem in snapshot.problems]) == (None, ["malformed"])
