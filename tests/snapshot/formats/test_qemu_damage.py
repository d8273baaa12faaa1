# SPDX-License-Identifier: MIT
"""Damaged and hostile streams: each is refused by a BadBlob or read with findings, in bounded memory."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmabi.snapshot.formats.qemu_description import described
from kvmabi.snapshot.source import BadBlob
from snapshot.qemu_samples import ALL_MODES, KVM, SMALL, UNDESCRIBED, Pipe, names, read, sample, without_ram

KINDS = (io.BytesIO, Pipe)
MOST_BYTES = 64 << 20
EXAMPLES = 300
MUTATED = (ALL_MODES, SMALL, KVM, UNDESCRIBED, "q100-v1-smp2-secondary-off", "q72-a57-gicv2-run")


def rules(data: bytes, kind: type[io.BytesIO] = io.BytesIO) -> list[str]:
    """The rules of all findings; "refused" for a stream that is none."""
    try:
        snapshot = read(data, kind)
    except BadBlob:
        return ["refused"]
    assert all(vcpu.registers.keys() >= vcpu.places.keys() for vcpu in snapshot.vcpus)
    return [problem.rule for problem in snapshot.problems]


def described_as(change: Callable[[dict[str, Any]], object], name: str = ALL_MODES) -> bytes:
    """A stream without RAM whose description is changed."""
    stream = without_ram(sample(name))
    at = stream.rindex(b"\0\x06")
    table = json.loads(stream[at + 6 :])
    change(table)
    return with_description(json.dumps(table).encode(), name)


def with_description(text: bytes, name: str = ALL_MODES) -> bytes:
    """A stream without RAM that has another text for its description."""
    stream = without_ram(sample(name))
    return stream[: stream.rindex(b"\0\x06") + 2] + len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize("name", names())
def test_whole_samples_are_clean(name: str) -> None:
    """What the tests below change is clean before."""
    stream = sample(name)
    assert rules(stream if stream.startswith(b"QFI") else without_ram(stream)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_truncation(kind: type[io.BytesIO]) -> None:
    """At steps all over the stream, and at each of its last bytes; only the end mark is an end."""
    stream = without_ram(sample(SMALL))
    end = stream.rindex(b"\0\x06") + 1
    clean = [
        size
        for size in sorted(
            {*range(0, len(stream), 101), *range(end - 150, end + 50), *range(len(stream) - 20, len(stream))}
        )
        if rules(stream[:size], kind) == []
    ]
    assert clean == [end]
    assert "truncated" in rules(stream[:-1], kind)


def test_truncated_within_a_vcpu() -> None:
    """The subsections before the end are read, and the rest is named."""
    stream = without_ram(sample(ALL_MODES))
    snapshot = read(stream[: stream.index(b"\x07cpu/sme") + 100])
    vcpu = snapshot.vcpus[0]
    assert vcpu.data("z31") is not None
    assert vcpu.data("za.h[0]") is None
    assert {problem.rule for problem in snapshot.problems} == {"truncated"}


_EDIT = st.tuples(
    st.integers(0, 1 << 17), st.sampled_from(["set", "insert", "delete"]), st.binary(min_size=1, max_size=12)
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(MUTATED), st.lists(_EDIT, min_size=1, max_size=6), st.sampled_from(KINDS))
@pytest.mark.slow
def test_mutations(name: str, edits: list[tuple[int, str, bytes]], kind: type[io.BytesIO]) -> None:
    """Whatever bytes change, a stream is read or refused."""
    stream = bytearray(without_ram(sample(name)))
    for at, what, data in edits:
        at %= len(stream)
        stream[at : at + (0 if what == "insert" else len(data))] = b"" if what == "delete" else data
    rules(bytes(stream), kind)


def _longer(table: dict[str, Any]) -> None:
    table["devices"][2]["fields"][0]["size"] += 1


def _renamed(table: dict[str, Any]) -> None:
    table["devices"][6]["subsections"][1]["vmsd_name"] = "cpu/svx"


def _invented(table: dict[str, Any]) -> None:
    table["devices"].insert(3, dict(table["devices"][3], name="other"))


def _left_out(table: dict[str, Any]) -> None:
    del table["devices"][6]


@pytest.mark.parametrize("change", [_longer, _renamed, _invented, _left_out])
@pytest.mark.parametrize("kind", KINDS)
def test_description_that_lies(change: Callable[[dict[str, Any]], None], kind: type[io.BytesIO]) -> None:
    """It is reported, and the vCPU is read without it."""
    stream = described_as(change)
    assert set(rules(stream, kind)) == {"description-mismatch"}
    assert read(stream, kind).vcpus[0].registers == read(sample(ALL_MODES)).vcpus[0].registers


def test_only_the_end_is_described() -> None:
    """A chain that ends before RAM is none: the vCPU before it is not passed over."""
    stream = described_as(lambda table: table.update(devices=table["devices"][-2:]))
    assert rules(stream) == ["description-mismatch"]
    assert read(stream).vcpus[0].data("za.h[0]") is not None


def test_what_follows_the_end() -> None:
    """Zeros are padding; other bytes are reported."""
    stream = without_ram(sample(ALL_MODES))
    assert rules(stream + bytes(5000)) == []
    assert rules(stream + b"more") == ["trailing-bytes"]
    end = stream.rindex(b"\0\x06") + 1
    assert rules(stream[:end] + bytes(5000)) == []
    assert rules(stream[:end] + bytes(100) + b"more") == ["trailing-bytes"]


def test_footer_of_another_section() -> None:
    """A part of RAM whose footer is not its own is reported."""
    stream = without_ram(sample(SMALL))
    at = stream.index(b"\x10\x7e") + 2
    assert "footer" in rules(stream[:at] + b"\0\0\0\x63" + stream[at + 4 :], Pipe)


def test_device_before_ram() -> None:
    """A section that is written before RAM, which the description lists first, is found by its footer."""

    def early(table: dict[str, Any]) -> None:
        fields = [{"name": "n", "type": "uint64", "size": 8}]
        table["devices"].insert(0, {"name": "early", "instance_id": 0, "version": 1, "fields": fields})

    stream = described_as(early)
    at = stream.index(b"\x01\0\0\0\x01\x03ram")
    section = b"\x04\0\0\0\x63\x05early" + struct.pack(">IIQ", 0, 1, 7) + b"\x7e\0\0\0\x63"
    command = b"\x08\0\x01\0\x03abc"
    for kind in KINDS:
        snapshot = read(stream[:at] + command + section + stream[at:], kind)
        assert snapshot.problems == []
        assert [device["size_bytes"] for device in snapshot.devices][:1] == [8]
        assert snapshot.vcpus[0].registers == read(sample(ALL_MODES)).vcpus[0].registers


def test_stream_without_footers() -> None:
    """Old machines write none: the description gives the sizes."""
    stream = without_ram(sample(KVM))
    end = stream.rindex(b"\0\x06")
    snapshot = read(sample(KVM))
    bare = b"".join(pieces(stream[:end]))
    assert len(bare) == end - 5 * (2 + len(snapshot.devices))
    assert rules(bare + stream[end:]) == []
    assert read(bare + stream[end:]).vcpus[0].registers == snapshot.vcpus[0].registers


def pieces(stream: bytes) -> list[bytes]:
    """The sections of a stream, without their footers."""
    found = [device["offset"] + device["size_bytes"] for device in read(stream + b"\0").devices]
    ram = stream.index(b"\x10\x7e") + 1
    cuts = [ram, stream.index(b"\x10\x7e", ram) + 1, *found]
    return [stream[begin:end] for begin, end in zip([0, *(cut + 5 for cut in cuts)], [*cuts, len(stream)], strict=True)]


RAM_PART = b"\x02\0\0\0\x01" + bytes(7) + b"\x10\x7e\0\0\0\x01"


def _parts(stream: bytes) -> bytes:
    at = stream.index(b"\x03\0\0\0\x01")
    return stream[:at] + RAM_PART * 20_000 + stream[at:]


def _sections(stream: bytes) -> bytes:
    numbers = (struct.pack(">I", number + 100) for number in range(20_000))
    return stream[: stream.rindex(b"\0\x06")] + b"".join(b"\x04" + n + b"\1a" + bytes(8) + b"\x7e" + n for n in numbers)


def _vcpus(stream: bytes) -> bytes:
    at = stream.index(b"\x04\0\0\0\x06\x03cpu")
    section = stream[at : stream.index(b"\x7e\0\0\0\x06", at) + 5]
    copies = (section[:9] + struct.pack(">I", n) + section[13:] for n in range(1, 1500))
    return stream[: stream.rindex(b"\0\x06")] + b"".join(copies)


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "parts": _parts,
    "sections": _sections,
    "vcpus": _vcpus,
    "records": lambda stream: (
        stream[: stream.index(b"\x03\0\0\0\x01")] + b"\x02\0\0\0\x01" + b"\0\0\0\0\0\0\2\0" * 60_000
    ),
    "footers": lambda stream: (
        stream[: stream.rindex(b"\0\x06")] + b"\x04\0\0\0\x50\1a" + bytes(8) + b"\x7e\0\0\0\x50" * 90_000
    ),
    "deep": lambda _: with_description(b"[" * 500_000),
    "lists": lambda _: with_description(b'{"devices":[' + b"[]," * 300_000 + b"[]]}"),
    "keys": lambda _: with_description(b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}"),
    "objects": lambda _: with_description(
        b'{"devices":[' + b",".join([b'{"name":"a","instance_id":0}'] * 30_000) + b"]}"
    ),
    "array": lambda _: described_as(
        lambda table: table["devices"][6]["fields"][0].update(array_len=1 << 31, size=1 << 31)
    ),
    "number": lambda _: with_description(b'{"devices":[{"name":"a","instance_id":' + b"9" * 50_000 + b"}]}"),
    "surrogate": lambda _: with_description(b'{"devices":[{"name":"\\ud800","instance_id":0}]}'),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, kind: type[io.BytesIO]) -> None:
    """Counts, depths and lengths that lie cost no memory; what is hostile about a description is reported."""
    stream = HOSTILE[name](without_ram(sample(ALL_MODES)))
    tracemalloc.start()
    try:
        found = rules(stream, kind)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES
    assert bool(found) == (name != "parts")


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"devices":{}}', b'{"devices":[{}]}', b'{"devices":[{"name":"a"}]}', b"\xff"]
)
def test_text_that_is_no_description(text: bytes) -> None:
    """JSON of another shape is refused as a description."""
    with pytest.raises(BadBlob) as refused:
        described(text)
    assert refused.value.rule == "description"


def test_depth_is_limited_before_parsing() -> None:
    """A description is nested some ten deep."""
    for depth, rule in ((30, "description"), (100, "too-large")):
        with pytest.raises(BadBlob) as refused:
            described(b"[" * depth + b"]" * depth)
        assert refused.value.rule == rule


def test_header() -> None:
    """Another version, a name of a machine that is too long, pages of no arm64 size."""
    stream = without_ram(sample(SMALL))
    for at, byte in ((7, 2), (12, 0xFF)):
        with pytest.raises(BadBlob):
            read(stream[:at] + bytes([byte]) + stream[at + 1 :])
    bits = stream.index(b"target-page-bits") + 16 + 4
    with pytest.raises(BadBlob, match="arm64"):
        read(stream[:bits] + b"\0\0\0\x0b" + stream[bits + 4 :])
