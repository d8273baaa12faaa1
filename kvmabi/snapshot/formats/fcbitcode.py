# SPDX-License-Identifier: MIT
"""The vCPUs in a Firecracker file whose body is bitcode: columns over all vCPUs (``bitcode``).

The vector of vCPUs gives four columns in a row: the number of IDs of each vCPU, all IDs, the size of each vCPU's data,
all data. The IDs' sizes differ, so that their column is never packed: it is found as a run of IDs, and the columns
around it are read by their rules. If damage makes that fail, the run is split where its first ID comes again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kvmabi import regid
from kvmabi.model.row import size_of
from kvmabi.snapshot.formats import idruns
from kvmabi.snapshot.formats.bitcode import Columns
from kvmabi.snapshot.formats.fcbincode import laid_out
from kvmabi.snapshot.formats.gathering import MOST_REGISTERS, MOST_REGISTERS_IN_ALL, MOST_VCPUS, Problems
from kvmabi.snapshot.snapshot import VcpuSnapshot
from kvmabi.snapshot.source import BadBlob

MOST_DATA_BYTES = 24 << 20
"""More data than a file of Firecracker's limit holds, even packed."""
COUNTS_TRIED = 2
"""By how much the number of vCPUs may differ from that of the first ID's occurrences: damage hides or adds some."""
SEARCHED_BYTES = 40
"""How far behind the IDs the data are looked for if the columns between are damaged, and the bytes of a vCPU more."""
LENGTH_BYTES = 3
"""The most bytes that a vCPU has in the columns of a list's lengths: one, and two for a number up to 65535."""
HEADERS_BYTES = 24
"""The most bytes that headers and minimums take of those columns."""
_MIDR, _MPIDR, _PC = map(regid.parse, ("midr_el1", "mpidr_el1", "pc"))
_MPIDR_RES1 = 1 << 31
RAW_HEADER = b"\0"


class Layout(NamedTuple):
    """The column of IDs: where it begins, in bytes, and how many IDs each vCPU has."""

    start: int
    counts: list[int]


def vcpus(data: bytes, at: int, problems: Problems) -> list[VcpuSnapshot]:
    """The vCPUs behind byte ``at``, in the order of the file."""
    longest = max(idruns.joined(idruns.runs(data, at)), key=lambda run: run.length, default=None)
    if longest is None:
        return []
    layout = _layout(data, at, longest)
    if layout is None:
        layout = _split(data, longest)
        text = "the column of the numbers of registers is damaged: a vCPU begins wherever the first ID is repeated"
        problems.report("malformed", text, longest.start)
    total = sum(layout.counts)
    if total > MOST_REGISTERS_IN_ALL or len(layout.counts) > MOST_VCPUS or max(layout.counts) > MOST_REGISTERS:
        raise BadBlob("more registers than the vCPUs of any VM have", layout.start, "too-large")
    every_id = idruns.ids_at(data, layout.start, total)
    ids, place = [], 0
    for count in layout.counts:
        ids.append(every_id[place : place + count])
        place += count
    if idruns.most_bytes(every_id) > MOST_DATA_BYTES:
        raise BadBlob(f"the registers' data are more than {MOST_DATA_BYTES >> 20} MiB", layout.start, "too-large")
    return list(_filled(data, layout.start + total * idruns.ID_BYTES, ids, problems))


def _layout(data: bytes, at: int, run: idruns.Run) -> Layout | None:
    """The lengths before the IDs, read by the rules of columns: those that end where the IDs begin and fit them."""
    for damaged in range(idruns.MOST_LOST + 1):
        start = run.start - damaged * idruns.ID_BYTES
        if start - 2 < at or data[start - 1 : start] != RAW_HEADER:
            continue
        first = data[start : start + idruns.ID_BYTES]
        lead = min(MOST_VCPUS, data[start : start + run.length * idruns.ID_BYTES].count(first))
        for count in range(max(1, lead - COUNTS_TRIED), lead + COUNTS_TRIED + 1):
            for begin in range(start - 2, max(at, start - HEADERS_BYTES - LENGTH_BYTES * count) - 1, -1):
                counts = _lengths(data, begin, start - 1, count)
                if counts and sum(counts) >= run.length + damaged and _all_there(data, start, counts):
                    return Layout(start, counts)
    return None


def _lengths(data: bytes, begin: int, end: int, count: int) -> list[int] | None:
    """The ``count`` lengths in the columns from ``begin`` on, if they end at ``end``."""
    columns = Columns(data, begin)
    try:
        columns.skip_lengths(count)
        if columns.at != end:
            return None
        lengths = Columns(data, begin).lengths(count)
    except BadBlob:
        return None
    return lengths if min(lengths) > 0 and max(lengths) <= MOST_REGISTERS else None


def _all_there(data: bytes, start: int, counts: list[int]) -> bool:
    return start + sum(counts) * idruns.ID_BYTES <= len(data)


def _split(data: bytes, run: idruns.Run) -> Layout:
    ids = idruns.ids_at(data, run.start, run.length)
    starts = [place for place, id in enumerate(ids) if id == ids[0]]
    return Layout(run.start, [end - begin for begin, end in zip(starts, [*starts[1:], len(ids)], strict=True)])


def _filled(data: bytes, at: int, ids: list[tuple[int, ...]], problems: Problems) -> Iterator[VcpuSnapshot]:
    """The vCPUs with their data, which stand behind byte ``at``."""
    columns = Columns(data, at)
    sizes: list[list[int]] = []
    try:
        totals = columns.lengths(len(ids))
        if sum(totals) > MOST_DATA_BYTES:
            raise BadBlob("the sizes of the registers' data are damaged", at)
        sizes = [idruns.sizes_for(own, total) or [] for own, total in zip(ids, totals, strict=True)]
        if not all(sizes):
            raise BadBlob("the sizes of the registers' data are not those of their IDs", at, "wrong-size")
        packed_at = columns.at
        values = b"" if data[packed_at : packed_at + 1] == RAW_HEADER else columns.octets(sum(totals))
    except BadBlob as error:
        problems.report(error.rule, f"{error.text}: the data are looked for", error.offset)
        sizes = [[size_of(id) for id in own] for own in ids]
        packed_at = _searched(data, at, ids, sizes)
        values = b""
    # Of a packed column only the whole has a place, not each register.
    source, place = (values, 0) if values else (data, packed_at + 1)
    for index, (own, own_sizes) in enumerate(zip(ids, sizes, strict=True)):
        vcpu = laid_out(source, index, own, own_sizes, place, problems)
        if values:
            vcpu.offsets = None
        place += sum(own_sizes)
        yield vcpu


def _searched(data: bytes, at: int, ids: list[tuple[int, ...]], sizes: list[list[int]]) -> int:
    """Where the column of data begins if nothing before it can be relied on. Raises BadBlob."""
    total = sum(map(sum, sizes))
    for begin in range(at, min(at + SEARCHED_BYTES + LENGTH_BYTES * len(ids), len(data) - total)):
        if data[begin : begin + 1] == RAW_HEADER and _plausible(data, begin + 1, ids[0], sizes[0]):
            return begin
    raise BadBlob("the registers' data are not found", at)


def _plausible(data: bytes, start: int, ids: tuple[int, ...], sizes: list[int]) -> bool:
    """Whether the data are those of a vCPU: MIDR is not 0, bit 31 of MPIDR is set, PC is aligned."""
    values = {}
    for id, size_bytes in zip(ids, sizes, strict=True):
        if id in (_MIDR, _MPIDR, _PC):
            values[id] = int.from_bytes(data[start : start + size_bytes], "little")
        start += size_bytes
    return bool(values.get(_MIDR, 1) and values.get(_MPIDR, _MPIDR_RES1) & _MPIDR_RES1 and not values.get(_PC, 0) & 3)
