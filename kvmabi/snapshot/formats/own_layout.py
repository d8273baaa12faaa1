# SPDX-License-Identifier: MIT
"""The layout of kvmabi's own format, version 1: the one definition that its reader, writer and page come from.

``FILE`` parses and builds whole files, slowly; the reader (own.py) takes the structs of fixed size and the layouts of
registers from here. All numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any, Final

from construct import (
    Array,
    Bytes,
    Checksum,
    Const,
    FixedSized,
    FormatField,
    Int8ul,
    Int16ul,
    Int32ul,
    Int64ul,
    PascalString,
    PrefixedArray,
    RawCopy,
    Struct,
    Terminated,
    this,
)

from kvmabi.model.row import size_of
from kvmabi.snapshot.formats.places import Places
from kvmabi.snapshot.valid import stored_bytes

MAGIC: Final = b"\x89kvmabi\n"
VCPU_MAGIC: Final = b"VCPU"
VERSION: Final = 1
ORIGINS: Final = ("UNKNOWN", "KVM", "TCG")
HAS_FEATURES, HAS_TARGET, HAS_SVE_BITS, HAS_SME_BITS = (1 << bit for bit in range(4))
HAS_MP_STATE, HAS_SERROR, SERROR_PENDING, SERROR_HAS_ESR = (1 << bit for bit in range(4))

Text = PascalString(Int16ul, "utf8")
Texts = PrefixedArray(Int8ul, PascalString(Int8ul, "utf8"))
Lengths = PrefixedArray(Int16ul, Int32ul)

HEAD = Struct(
    "magic" / Const(MAGIC) * "first bytes of the file",
    "version" / Int16ul * "1; a reader refuses greater ones",
    "known" / Int16ul * "bit 0: `features` are known, 1: `target`, 2: `sve_bits`, 3: `sme_bits`",
    "vcpu_count" / Int32ul * "records that follow the header",
    "description_bytes" / Int32ul * "size of `description`",
    "facts_bytes" / Int32ul * "size of `facts`",
    "devices_bytes" / Int32ul * "size of `devices`",
)
DESCRIPTION = Struct(
    "origin" / Int8ul * "0 unknown, 1 KVM, 2 TCG",
    "target" / Int32ul * "target of KVM_ARM_VCPU_INIT",
    "host" / Text * "name of the host, empty if it is unknown",
    "kernel" / Text * "name of the kernel, empty if it is unknown",
    "features" / Texts * "features of KVM_ARM_VCPU_INIT by name",
    "sve_bits" / Lengths * "SVE vector lengths of the guest in bits",
    "sme_bits" / Lengths * "SME vector lengths of the guest in bits",
    "unknown" / Texts * "what the source could not hold: names of `kvmabi.snapshot.snapshot.Fact`",
    Terminated,
)
HEADER_BODY = Struct(
    "head" / HEAD * "fixed size",
    "description" / FixedSized(this.head.description_bytes, DESCRIPTION) * "what the VM was",
    "facts" / Bytes(this.head.facts_bytes) * "other facts: compact JSON, an object",
    "devices" / Bytes(this.head.devices_bytes) * "other devices: compact JSON, an array of objects",
)
VCPU_HEAD = Struct(
    "magic" / Const(VCPU_MAGIC) * "first bytes of a record",
    "record_bytes" / Int32ul * "size of the record from `ids` to `facts`",
    "index" / Int32ul * "the vCPU's number",
    "known" / Int32ul * "bit 0: `mp_state` is known, 1: an SError's state is known, 2: it is pending, 3: it has an ESR",
    "mp_state" / Int32ul * "`KVM_MP_STATE_`",
    "facts_bytes" / Int32ul * "size of `facts`",
    "serror_esr" / Int64ul * "the pending SError's ESR",
)
SHAPE = Struct(
    "z_bytes" / Int16ul * "stored bytes of Z; P and FFR have an eighth. The vector length of the mode that svcr says, "
    "256 if it is unknown",
    "za_bytes" / Int16ul * "stored bytes of a row of ZA: SME's vector length, 256 if it is unknown",
    "register_count" / Int32ul * "registers",
    "exception_count" / Int32ul * "registers that are not stored at their valid length",
)
EXCEPTION = Struct(
    "place" / Int32ul * "which register, from 0",
    "size_bytes" / Int32ul * "how many bytes are stored of it",
)


def _stored_bytes(context: Any) -> int:
    """How much of the register at ``context._index`` is stored."""
    outer = context._
    for exception in outer.exceptions:
        if exception.place == context._index:
            return int(exception.size_bytes)
    return stored_bytes(outer.ids[context._index], outer.shape.z_bytes, outer.shape.za_bytes)


VCPU_BODY = Struct(
    "head" / VCPU_HEAD * "fixed size",
    "shape" / SHAPE * "fixed size",
    "ids" / Array(this.shape.register_count, Int64ul) * "register IDs in the order of the source",
    "exceptions"
    / Array(this.shape.exception_count, EXCEPTION)
    * "registers that have bytes beyond their valid length, "
    "or another size than their ID says: stored as they are",
    "values"
    / Array(this.shape.register_count, Struct("data" / Bytes(_stored_bytes)))
    * "the values in that order: the "
    "valid bytes, which zeroes follow in a transfer",
    "facts" / Bytes(this.head.facts_bytes) * "other facts: compact JSON, an object",
)


def _crc(data: bytes) -> int:
    return zlib.crc32(data)


HEADER = Struct(
    "body" / RawCopy(HEADER_BODY) * "the header",
    "crc" / Checksum(Int32ul, _crc, this.body.data) * "CRC-32 of the header (zlib's: polynomial 0xedb88320)",
)
VCPU = Struct(
    "body" / RawCopy(VCPU_BODY) * "the record",
    "crc" / Checksum(Int32ul, _crc, this.body.data) * "CRC-32 of the record",
)
FILE = Struct(
    "header" / HEADER * "once",
    "vcpus" / Array(this.header.body.value.head.vcpu_count, VCPU) * "a record for each vCPU",
    Terminated,
)
PARTS: Final = {
    "Header": HEADER_BODY,
    "Head of the header": HEAD,
    "Description": DESCRIPTION,
    "Record of a vCPU": VCPU_BODY,
    "Head of a record": VCPU_HEAD,
    "Shape": SHAPE,
    "Exception": EXCEPTION,
}
"""The structs that docs/reference/blob-format.md shows."""


def fixed(definition: Any) -> struct.Struct:
    """The struct.Struct of a definition that has only numbers and constants."""
    return struct.Struct("<" + "".join(_format(field) for field in definition.subcons))


def _format(field: Any) -> str:
    while not isinstance(field, FormatField | Const):
        field = field.subcon
    return f"{field.sizeof()}s" if isinstance(field, Const) else str(field.fmtstr).lstrip("<>=")


CRC = struct.Struct("<I")
MOST_CACHED = 2048


class Registers:
    """How the values of one list of IDs are stored: worked out once for all vCPUs that have the list and the lengths.

    ``values`` slices all stored values at once; ``widened`` are runs of those that are shorter than a transfer, with
    the zeroes that each of a run lacks. ``is_valid``: the exceptions name registers of the list.
    """

    __slots__ = ("empty", "ids", "is_valid", "sizes", "values", "values_bytes", "widened", "within")

    def __init__(self, shape: bytes) -> None:
        z_bytes, za_bytes, count, exception_count = SHAPE_STRUCT.unpack_from(shape)
        at = SHAPE_STRUCT.size
        self.ids: tuple[int, ...] = struct.unpack_from(f"<{count}Q", shape, at)
        self.empty = dict.fromkeys(self.ids, b"")
        sizes = [stored_bytes(id, z_bytes, za_bytes) for id in self.ids]
        exceptions = list(EXCEPTION_STRUCT.iter_unpack(shape[at + 8 * count :]))
        self.is_valid = len(exceptions) == exception_count and all(place < count for place, _ in exceptions)
        missing = [size_of(id) - size for id, size in zip(self.ids, sizes, strict=True)]
        for place, size_bytes in exceptions if self.is_valid else ():
            sizes[place], missing[place] = size_bytes, 0
        self.sizes = sizes
        self.values_bytes = sum(sizes)
        self.widened = tuple(_runs(missing))
        self.values: struct.Struct | None = None
        self.within: dict[int, int] | None = None

    def unpack(self, data: bytes, at: int) -> dict[int, bytes]:
        """The registers whose values, ``values_bytes`` of them, begin at ``at``."""
        if self.values is None:  # only now: the bytes are there, and a size that lies is not
            self.values = struct.Struct("<" + "".join(f"{size}s" for size in self.sizes))
        values = list(self.values.unpack_from(data, at))
        for run, zeroes in self.widened:
            values[run] = [value + zeroes for value in values[run]]
        held = self.empty.copy()  # of the right size from the start
        held.update(zip(self.ids, values, strict=True))
        return held

    def places(self, at: int) -> Mapping[int, int]:
        """Where each register's value is, if the values begin at ``at``."""
        if self.within is None:
            self.within = dict(zip(self.ids, accumulate(self.sizes, initial=0), strict=False))
        return Places(self.within, at, self.within)


def _runs(missing: Sequence[int]) -> Iterator[tuple[slice, bytes]]:
    """Runs of values that lack equally many bytes, if any."""
    start = 0
    for size_bytes, run in groupby(missing):
        end = start + len(list(run))
        if size_bytes:
            yield slice(start, end), bytes(size_bytes)
        start = end


HEAD_STRUCT, VCPU_STRUCT = fixed(HEAD), fixed(VCPU_HEAD)
SHAPE_STRUCT, EXCEPTION_STRUCT = fixed(SHAPE), fixed(EXCEPTION)

_cached = lru_cache(32)(Registers)


def registers(shape: bytes) -> Registers:
    """The layout that the bytes from ``shape`` to the exceptions describe."""
    return _cached(shape) if len(shape) <= SHAPE_STRUCT.size + 8 * MOST_CACHED else Registers(shape)
