# SPDX-License-Identifier: MIT
"""kvmabi's own format: whole snapshots, compact and checked, read one vCPU at a time (docs/reference/blob-format.md).

>>> import kvmabi
>>> from kvmabi.snapshot import opening
>>> with kvmabi.open(host="sme-demo") as kvm:
...     vcpu = kvm.create_vm().create_vcpu(0)
...     vcpu.init()
...     snapshot = kvmabi.save(vcpu)
>>> again = opening.read_bytes(write(snapshot))
>>> again.format, again.host, again.vcpus == snapshot.vcpus
('kvmabi', 'sme-demo', True)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from construct import ConstructError, Container

from kvmabi import wholefile
from kvmabi.errors import UsageError
from kvmabi.model.row import size_of
from kvmabi.snapshot.formats import own_layout as layout
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.formats.gathering import MOST_LENGTH_BITS
from kvmabi.snapshot.snapshot import Fact, Origin, Problem, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import MOST_WHOLE_BYTES, BadBlob, Source
from kvmabi.snapshot.valid import MOST_VL_BYTES, lengths_bytes, stored_bytes

NAME = "kvmabi"
MOST_VCPUS = 4096  # KVM creates at most 512
MOST_REGISTERS = 1 << 14
MOST_JSON_BYTES = 1 << 20
MOST_DESCRIPTION_BYTES = 1 << 16
VALID_BYTES = range(16, MOST_VL_BYTES + 1, 16)
NO_OBJECT, NO_ARRAY = b"{}", b"[]"
ID_BYTES = 8
HEAD_FIXED, VCPU_FIXED, SHAPE_FIXED = layout.HEAD_STRUCT, layout.VCPU_STRUCT, layout.SHAPE_STRUCT


class Reader:
    """A file that is read vCPU by vCPU: ``snapshot`` is its header, without vCPUs; iterating returns those.

    Memory is needed for one vCPU only. Problems go into ``snapshot.problems`` as they are met. Raises BadBlob if the
    header or the first vCPU cannot be read; damage after that is a Problem, and ends the iteration.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.snapshot, self._count = _header(source)

    def __iter__(self) -> Iterator[VcpuSnapshot]:
        problems = self.snapshot.problems
        indexes: set[int] = set()
        for number in range(self._count):
            try:
                vcpu = _vcpu(self._source, problems)
            except BadBlob as error:
                if not number:
                    raise
                text = f"vCPU record {number} of {self._count}: {error.text}"
                problems.append(Problem(error.rule, text, error.offset))
                return
            if vcpu.index in indexes:
                text = f"two records are of vCPU {vcpu.index}"
                problems.append(Problem("duplicate-vcpu", text, self._source.at, vcpu.index))
            indexes.add(vcpu.index)
            yield vcpu
        if self._source.peek(1):
            problems.append(Problem("trailing-bytes", "bytes follow the last vCPU", self._source.at))


def read(source: Source) -> Snapshot:
    """The whole snapshot."""
    reader = Reader(source)
    reader.snapshot.vcpus.extend(reader)
    return reader.snapshot


def _header(source: Source) -> tuple[Snapshot, int]:
    """The header as a snapshot without vCPUs, and the number of vCPUs that follow."""
    head = source.take(HEAD_FIXED.size)
    magic, version, known, vcpu_count, description_bytes, facts_bytes, devices_bytes = HEAD_FIXED.unpack(head)
    if magic != layout.MAGIC:
        raise BadBlob("does not begin as a snapshot of kvmabi", 0)
    if version != layout.VERSION:
        raise BadBlob(f"has version {version} of the format, kvmabi reads {layout.VERSION}", len(magic), "unsupported")
    if vcpu_count > MOST_VCPUS:
        raise BadBlob(f"claims {vcpu_count} vCPUs, more than {MOST_VCPUS}", len(magic), "too-large")
    if description_bytes > MOST_DESCRIPTION_BYTES or max(facts_bytes, devices_bytes) > MOST_JSON_BYTES:
        raise BadBlob("has a header that is larger than any", len(magic), "too-large")
    at = source.at
    body = source.take(description_bytes + facts_bytes + devices_bytes + layout.CRC.size)
    problems: list[Problem] = []
    _check_crc(problems, "the header", 0, body, crc32(body[: -layout.CRC.size], crc32(head)), None)
    facts_at = description_bytes + facts_bytes
    fields = _description(body[:description_bytes], at)
    if fields.strange:
        problems.append(Problem("malformed", f"no fact has the name {fields.strange!r:.40}", at))
    return (
        Snapshot(
            NAME,
            [],
            fields.origin,
            features=fields.features if known & layout.HAS_FEATURES else None,
            target=fields.target if known & layout.HAS_TARGET else None,
            host=fields.host,
            kernel=fields.kernel,
            sve_bits=_lengths(fields.sve_bits, problems, at) if known & layout.HAS_SVE_BITS else None,
            sme_bits=_lengths(fields.sme_bits, problems, at) if known & layout.HAS_SME_BITS else None,
            unknown=fields.unknown,
            facts=_json(body[description_bytes:facts_at], dict, problems, at + description_bytes, None),
            devices=_devices(body[facts_at : -layout.CRC.size], problems, at + facts_at),
            problems=problems,
        ),
        vcpu_count,
    )


class _Description(NamedTuple):
    """What the header says in words; ``strange`` is a fact that this version does not know, "" for none."""

    origin: Origin
    target: int
    host: str
    kernel: str
    features: frozenset[str]
    sve_bits: tuple[int, ...]
    sme_bits: tuple[int, ...]
    unknown: frozenset[Fact]
    strange: str


def _description(data: bytes, at: int) -> _Description:
    try:
        return _parsed(data)
    except (ConstructError, UnicodeError) as error:
        raise BadBlob(f"the header's description is damaged: {str(error).splitlines()[0]}", at) from None


@lru_cache(64)
def _parsed(data: bytes) -> _Description:
    """The fields of a description; files of one fleet have few of them."""
    fields = layout.DESCRIPTION.parse(data)
    known = Fact.__members__
    return _Description(
        Origin[layout.ORIGINS[fields.origin]] if fields.origin < len(layout.ORIGINS) else Origin.UNKNOWN,
        fields.target,
        fields.host,
        fields.kernel,
        frozenset(fields.features),
        tuple(fields.sve_bits),
        tuple(fields.sme_bits),
        frozenset(known[name] for name in fields.unknown if name in known),
        next((name for name in fields.unknown if name not in known), ""),
    )


def _lengths(bits: tuple[int, ...], problems: list[Problem], at: int) -> tuple[int, ...] | None:
    """Vector lengths in bits; None if one is longer than any vector."""
    if all(length <= MOST_LENGTH_BITS for length in bits):
        return bits
    problems.append(Problem("malformed", "a vector length is longer than any vector", at))
    return None


def _devices(data: bytes, problems: list[Problem], at: int) -> list[dict[str, Any]]:
    found = _json(data, list, problems, at, None)
    devices = [device for device in found if isinstance(device, dict)]
    if len(devices) != len(found):
        problems.append(Problem("malformed", "a device is not an object", at))
    return devices


def _json(data: bytes, kind: type[Any], problems: list[Problem], at: int, vcpu: int | None) -> Any:
    """A JSON value of a kind, an empty one if it is damaged."""
    if data in (NO_OBJECT, NO_ARRAY) or not data:
        return kind()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, kind):
        return value
    problems.append(Problem("malformed", "the facts are not the JSON that they should be", at, vcpu))
    return kind()


def _check_crc(problems: list[Problem], what: str, at: int, body: bytes, crc: int, vcpu: int | None) -> None:
    (stored,) = layout.CRC.unpack_from(body, len(body) - layout.CRC.size)
    if stored != crc:
        text = f"the CRC of {what} is {stored:#010x}, its bytes have {crc:#010x}"
        problems.append(Problem("bad-crc", text, at, vcpu))


def _vcpu(source: Source, problems: list[Problem]) -> VcpuSnapshot:
    """The record that comes next."""
    start = source.at
    head = source.take(VCPU_FIXED.size + SHAPE_FIXED.size)
    magic, record_bytes, index, known, mp_state, facts_bytes, esr = VCPU_FIXED.unpack_from(head)
    z_bytes, za_bytes, count, exception_count = SHAPE_FIXED.unpack_from(head, VCPU_FIXED.size)
    if magic != layout.VCPU_MAGIC:
        raise BadBlob("no record of a vCPU begins here", start)
    if record_bytes > MOST_WHOLE_BYTES or count > MOST_REGISTERS or facts_bytes > MOST_JSON_BYTES:
        raise BadBlob("claims to be larger than any vCPU", start, "too-large")
    values_at = ID_BYTES * count + layout.EXCEPTION_STRUCT.size * exception_count
    facts_at = record_bytes - facts_bytes
    if exception_count > count or values_at > facts_at or z_bytes not in VALID_BYTES or za_bytes not in VALID_BYTES:
        raise BadBlob("the record of a vCPU contradicts itself", start)
    body = source.take(record_bytes + layout.CRC.size)
    _check_crc(problems, f"vCPU {index}", start, body, crc32(memoryview(body)[:record_bytes], crc32(head)), index)
    registers = layout.registers(head[VCPU_FIXED.size :] + body[:values_at])
    if not registers.is_valid or values_at + registers.values_bytes != facts_at:
        raise BadBlob("the sizes of a vCPU's registers contradict one another", start)
    values = registers.unpack(body, values_at)
    if len(values) != count:
        problems.append(Problem("duplicate-register", "a register is stored twice; the last one counts", start, index))
    data_at = start + len(head) + values_at
    return VcpuSnapshot(
        index,
        values,
        mp_state if known & layout.HAS_MP_STATE else None,
        _serror(known, esr),
        partial(registers.places, data_at),
        _json(body[facts_at:record_bytes], dict, problems, start + len(head) + facts_at, index) if facts_bytes else {},
    )


def _serror(known: int, esr: int) -> tuple[bool, bool, int] | None:
    if not known & layout.HAS_SERROR:
        return None
    return bool(known & layout.SERROR_PENDING), bool(known & layout.SERROR_HAS_ESR), esr


# --- writing


def write(snapshot: Snapshot) -> bytes:
    """The snapshot in this format. Raises UsageError for one that the format cannot hold."""
    return b"".join(pieces(snapshot))


def pieces(snapshot: Snapshot) -> Iterator[bytes]:
    """The same piece by piece: the header, then each vCPU."""
    try:
        yield _packed_header(snapshot)
        for vcpu in snapshot.vcpus:
            yield _packed_vcpu(snapshot, vcpu)
    except (ConstructError, struct.error, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"the snapshot does not fit into kvmabi's format: {str(error).splitlines()[0]}") from None


def store(snapshot: Snapshot, path: str | Path) -> None:
    """Write the snapshot to a file, at once or not at all. Raises UsageError."""
    wholefile.replace(Path(path), write(snapshot))


def _packed_header(snapshot: Snapshot) -> bytes:
    known = (
        layout.HAS_FEATURES * (snapshot.features is not None)
        | layout.HAS_TARGET * (snapshot.target is not None)
        | layout.HAS_SVE_BITS * (snapshot.sve_bits is not None)
        | layout.HAS_SME_BITS * (snapshot.sme_bits is not None)
    )
    description = _built(
        layout.ORIGINS.index(snapshot.origin.name),
        snapshot.target or 0,
        snapshot.host,
        snapshot.kernel,
        frozenset(snapshot.features or ()),
        tuple(snapshot.sve_bits or ()),
        tuple(snapshot.sme_bits or ()),
        snapshot.unknown,
    )
    facts, devices = _compact(snapshot.facts), _compact(snapshot.devices)
    if len(snapshot.vcpus) > MOST_VCPUS or len(description) > MOST_DESCRIPTION_BYTES:
        raise ValueError("it has too many vCPUs, or too much text")
    sizes = len(snapshot.vcpus), len(description), len(facts), len(devices)
    body = HEAD_FIXED.pack(layout.MAGIC, layout.VERSION, known, *sizes) + description + facts + devices
    return body + layout.CRC.pack(crc32(body))


@lru_cache(64)
def _built(
    origin: int,
    target: int,
    host: str,
    kernel: str,
    features: frozenset[str],
    sve_bits: tuple[int, ...],
    sme_bits: tuple[int, ...],
    unknown: frozenset[Fact],
) -> bytes:
    """A description's bytes."""
    fields = Container(
        origin=origin,
        target=target,
        host=host,
        kernel=kernel,
        features=sorted(features),
        sve_bits=sve_bits,
        sme_bits=sme_bits,
        unknown=sorted(fact.name for fact in unknown),
    )
    built: bytes = layout.DESCRIPTION.build(fields)
    return built


def _packed_vcpu(snapshot: Snapshot, vcpu: VcpuSnapshot) -> bytes:
    z_bytes, za_bytes = (size if size in VALID_BYTES else MOST_VL_BYTES for size in lengths_bytes(snapshot, vcpu))
    values: list[bytes] = []
    exceptions: list[bytes] = []
    for place, (id, data) in enumerate(vcpu.registers.items()):
        kept = stored_bytes(id, z_bytes, za_bytes)
        if len(data) != size_of(id) or any(data[kept:]):
            kept = len(data)
            exceptions.append(layout.EXCEPTION_STRUCT.pack(place, kept))
        values.append(data[:kept])
    if len(values) > MOST_REGISTERS:
        raise ValueError(f"vCPU {vcpu.index} has more than {MOST_REGISTERS} registers")
    facts = _compact(vcpu.facts) if vcpu.facts else b""
    ids = struct.pack(f"<{len(values)}Q", *vcpu.registers)
    content = b"".join((ids, *exceptions, *values, facts))
    pending, has_esr, esr = vcpu.serror or (False, False, 0)
    known = (
        layout.HAS_MP_STATE * (vcpu.mp_state is not None)
        | layout.HAS_SERROR * (vcpu.serror is not None)
        | layout.SERROR_PENDING * pending
        | layout.SERROR_HAS_ESR * has_esr
    )
    numbers = len(content), vcpu.index, known, vcpu.mp_state or 0, len(facts), esr
    head = VCPU_FIXED.pack(layout.VCPU_MAGIC, *numbers)
    shape = SHAPE_FIXED.pack(z_bytes, za_bytes, len(values), len(exceptions))
    body = head + shape + content
    return body + layout.CRC.pack(crc32(body))


def _compact(value: Any) -> bytes:
    """Compact JSON. Sets become sorted arrays and bytes become hex: JSON has neither."""
    data = json.dumps(value, separators=(",", ":"), default=_plain).encode("ascii")
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"its facts are larger than {MOST_JSON_BYTES >> 20} MiB")
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _recognises(head: bytes) -> bool:
    return head.startswith(layout.MAGIC)


FORMAT = Format(NAME, "kvmabi's own format", _recognises, read)
