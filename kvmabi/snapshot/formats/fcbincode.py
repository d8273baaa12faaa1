# SPDX-License-Identifier: MIT
"""The vCPUs in a Firecracker file whose body is bincode: fixed-width little-endian fields, lengths of 64 bits.

A vCPU is: u64 4 and its MP state in 4 bytes; u64 n and n IDs; u64 size and the data of all registers; u64 MPIDR; u64 32
and struct kvm_vcpu_init; an option of the address of its stolen time. Before the first one stands their number.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from kvmabi import regid, uapi
from kvmabi.model.row import size_of
from kvmabi.snapshot.formats import idruns
from kvmabi.snapshot.formats.gathering import MOST_REGISTERS, MOST_REGISTERS_IN_ALL, MOST_VCPUS, Problems
from kvmabi.snapshot.snapshot import VcpuSnapshot
from kvmabi.snapshot.source import BadBlob

_U64 = struct.Struct("<Q")
MP_STATE_BYTES = 4
INIT_BYTES = uapi.ffi.sizeof("struct kvm_vcpu_init")


class Lists(NamedTuple):
    """One vCPU's IDs and data: where the IDs and the data begin and end in bytes, and the size of each register."""

    start: int
    ids: tuple[int, ...]
    sizes: list[int]
    data_start: int
    end: int


def vcpus(data: bytes, at: int, problems: Problems) -> list[VcpuSnapshot]:
    """The vCPUs behind byte ``at``, in the order of the file."""
    found: list[VcpuSnapshot] = []
    stated, total = None, 0
    while lists := _next(data, at, problems, len(found)):
        if not found:
            stated = _number(data, lists.start - 8 - MP_STATE_BYTES - 8 - 8)
        total += len(lists.ids)
        if total > MOST_REGISTERS_IN_ALL or len(found) >= MOST_VCPUS:
            raise BadBlob("more registers than the vCPUs of any VM have", lists.start, "too-large")
        vcpu = laid_out(data, len(found), lists.ids, lists.sizes, lists.data_start, problems)
        _about(data, lists, vcpu)
        found.append(vcpu)
        at = lists.end
    if found and stated is not None and len(found) < stated <= MOST_VCPUS:
        text = f"the file states {stated} vCPUs, and {len(found)} are found"
        problems.report("missing-vcpu", text, at)
    return found


def _next(data: bytes, at: int, problems: Problems, index: int) -> Lists | None:
    for run in idruns.runs(data, at):
        for damaged in range(idruns.MOST_LOST + 1):
            start = run.start - damaged * idruns.ID_BYTES
            if start - 8 >= at and (lists := _lists(data, start, run.length + damaged, problems, index)):
                return lists
    return None


def _lists(data: bytes, start: int, least: int, problems: Problems, index: int) -> Lists | None:
    """The lists whose IDs begin at ``start``, if the number before them and the size behind them fit together."""
    count = _number(data, start - 8)
    if count is None or not least <= count <= MOST_REGISTERS:
        return None
    ids = idruns.ids_at(data, start, count)
    data_start = start + count * idruns.ID_BYTES + 8
    size_bytes = _number(data, data_start - 8)
    if len(ids) < count or size_bytes is None:
        problems.report("truncated", f"the list of {count} registers ends too early", len(data), index)
        return None
    sizes = idruns.sizes_for(ids, size_bytes)
    if sizes is None:
        sizes = [size_of(id) for id in ids]
        text = f"the registers' data are {size_bytes} bytes, their IDs ask for {sum(sizes)}: Firecracker refuses that"
        problems.report("wrong-size", text, data_start - 8, index)
    return Lists(start, ids, sizes, data_start, min(data_start + sum(sizes), len(data)))


def laid_out(
    data: bytes, index: int, ids: tuple[int, ...], sizes: list[int], start: int, problems: Problems
) -> VcpuSnapshot:
    """The vCPU whose registers' data stand one behind the other from byte ``start`` on."""
    registers: dict[int, bytes] = {}
    places: dict[int, int] = {}
    for id, size_bytes in zip(ids, sizes, strict=True):
        payload = data[start : start + size_bytes]
        place = start
        start += size_bytes
        if len(payload) < size_bytes:
            text = f"the data end at {regid.name_of(id)}: it and the registers behind it are missing"
            problems.report("truncated", text, len(data), index, id)
            break
        if size_bytes != size_of(id):
            name = regid.name_of(idruns.natural_id(id))
            text = f"the ID of {name} says {size_of(id)} bytes, the register and its data have {size_bytes}"
            problems.report("wrong-size", text, place, index, id)
            continue
        if id in registers:
            problems.report("duplicate-register", f"{regid.name_of(id)} is there twice", place, index, id)
        registers[id] = payload
        places[id] = place
    return VcpuSnapshot(index, registers, offsets=lambda: places)


def _about(data: bytes, lists: Lists, vcpu: VcpuSnapshot) -> None:
    """Take the MP state before the lists, and MPIDR and struct kvm_vcpu_init behind them, as far as they are there."""
    mp_state_at = lists.start - 8 - MP_STATE_BYTES
    if _number(data, mp_state_at - 8) == MP_STATE_BYTES:
        vcpu.mp_state = int.from_bytes(data[mp_state_at : mp_state_at + MP_STATE_BYTES], "little")
    init_at = lists.end + 16
    if _number(data, lists.end + 8) != INIT_BYTES or len(data) < init_at + INIT_BYTES:
        return
    target, *words = struct.unpack_from("<8I", data, init_at)
    vcpu.facts["kvi"] = {"target": target, "features": words}


def _number(data: bytes, at: int) -> int | None:
    """The 64-bit number at a place; None outside the data."""
    if not 0 <= at <= len(data) - _U64.size:
        return None
    number: int = _U64.unpack_from(data, at)[0]
    return number
