# SPDX-License-Identifier: MIT
"""cloud-hypervisor's state.json: JSON within strings of JSON, alone or in a snapshot's directory.

An object with ``core_regs`` is a vCPU, however it is nested: versions moved it. Its encodings: struct kvm_regs as bytes
(v40 on) or as an object of its fields (older); the other registers as 16 bytes of ID and value (v40 on) or as objects
of ``id`` and ``addr`` (older); from v53 on vector registers as ``id`` and ``data``. The file does not say in which
order the lists are written back, nor what KVM_ARM_VCPU_INIT was given.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kvmabi.snapshot.formats import chplaces, folders, jsonspans
from kvmabi.snapshot.formats.chcore import as_bytes, core_registers, is_u64
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.formats.gathering import (
    MOST_REGISTERS_IN_ALL,
    Gathered,
    Problems,
    finished,
    missing_library,
)
from kvmabi.snapshot.snapshot import Fact, Origin, Problem, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob, Source

STATE_FILE, CONFIG_FILE, MEMORY_FILE = "state.json", "config.json", "memory-ranges"
VCPU_KEY = "core_regs"
FOREIGN = b"Mshv"
"""The name of the other hypervisor's state."""
GIC_KEYS = frozenset({"dist", "rdist"})
WIDE_LISTS = ("pre_finalize_regs", "extended_regs")
"""Registers of any size, from v53 on."""
V_AS_NUMBERS = b"vregs"
"""The field of V where core registers are an object: numbers of 128 bits."""
MOST_CONFIG_BYTES = 1 << 20
KEYS = GIC_KEYS | {VCPU_KEY}
MOST_NESTING = 3
"""How many strings within strings a vCPU is looked for in."""
MOST_STRING_BYTES = 8 << 20
_PAIR = struct.Struct("<QQ")
_NUMBERED = re.compile(r"(?:v?cpu[-_]?)?([0-9]{1,4})")
UNKNOWN = frozenset({Fact.FEATURES, Fact.HOST, Fact.KERNEL, Fact.ORDER, Fact.EVENTS})
BEFORE_WIDE_LISTS = frozenset({Fact.VECTOR_LENGTHS, Fact.SVE, Fact.LONG_Z})
Loads = Callable[[bytes | str], Any]


def recognises(head: bytes) -> bool:
    """Whether a file begins as JSON with one of the keys of a snapshot."""
    keys = (b'"snapshots"', b'"snapshot_data"', b'"core_regs"')
    return head.lstrip()[:1] == b"{" and any(key in head for key in keys)


def read(source: Source) -> Snapshot:
    """Read a state.json."""
    try:
        import orjson
    except ImportError:
        raise missing_library("orjson", "reading a snapshot of cloud-hypervisor") from None
    text = source.rest(jsonspans.MOST_BYTES)
    problems = Problems()
    snapshot = Snapshot("cloud-hypervisor", [], Origin.KVM, unknown=UNKNOWN | {Fact.SME}, problems=problems)
    seen: set[int] = set()
    total, has_wide_lists = 0, False
    for span in jsonspans.spans(text, KEYS):
        for path, state in _objects(text, span, orjson.loads, problems):
            if VCPU_KEY not in state:
                snapshot.devices.append(_gic(path, state, span))
                continue
            index = _index(path, len(snapshot.vcpus))
            if index in seen:
                problems.report("duplicate-vcpu", f"vCPU {index} is there twice: the first one counts", span.start)
                continue
            seen.add(index)
            has_wide_lists = has_wide_lists or any(name in state for name in WIDE_LISTS)
            vcpu = _vcpu(index, state, problems, span.start)
            vcpu.offsets = chplaces.places(text, span, list(vcpu.registers))
            snapshot.vcpus.append(vcpu)
            total += len(vcpu.registers)
            if total > MOST_REGISTERS_IN_ALL:
                raise BadBlob("more registers than the vCPUs of any VM have", span.start, "too-large")
    if not snapshot.vcpus:
        if FOREIGN in text:
            raise BadBlob("is a snapshot of cloud-hypervisor on mshv, not on KVM", 0, "foreign-hypervisor")
        raise BadBlob("is JSON without a vCPU of cloud-hypervisor (core_regs)", 0, "no-vcpu")
    snapshot.facts["shape"] = "v53 and later" if has_wide_lists else "before v53"
    if not has_wide_lists:
        snapshot.unknown |= BEFORE_WIDE_LISTS
    return finished(snapshot)


def read_folder(root: Path) -> Snapshot | None:
    """Read a snapshot's directory; None if it has no state.json."""
    names = folders.names(root)
    if STATE_FILE not in names:
        return None
    with folders.opened(root, STATE_FILE) as file:
        snapshot = read(Source(STATE_FILE, file))
    if CONFIG_FILE in names:
        with folders.opened(root, CONFIG_FILE) as file:
            _take_config(snapshot, Source(CONFIG_FILE, file))
    if MEMORY_FILE in names:
        with folders.opened(root, MEMORY_FILE) as file:
            size_bytes = Source(MEMORY_FILE, file).size_bytes
        snapshot.devices.append({"name": MEMORY_FILE, "size_bytes": size_bytes})
    return snapshot


def _objects(
    text: bytes, span: jsonspans.Span, loads: Loads, problems: Problems, depth: int = MOST_NESTING
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The objects of interest in a span, with the keys that lead to them. A damaged one is a problem."""
    raw = text[span.start : span.end]
    if span.is_string and (not depth or not any(key.encode() in raw for key in KEYS)):
        return
    try:
        if not span.is_string:
            jsonspans.check_span(raw, span.start)
            state = (json.loads if V_AS_NUMBERS in raw else loads)(raw)  # orjson makes floats beyond 64 bits
            if VCPU_KEY in state or state.keys() >= GIC_KEYS:
                yield span.path, state
            return
        if len(raw) > MOST_STRING_BYTES:
            raise BadBlob("a string of JSON is too long", span.start, "too-large")
        inner = loads(raw).encode()
        del raw
        for inside in jsonspans.spans(inner, KEYS):
            for path, state in _objects(inner, inside, loads, problems, depth - 1):
                yield (*span.path, *path), state
    except (BadBlob, ValueError, RecursionError) as error:
        rule = error.rule if isinstance(error, BadBlob) else "malformed"
        problems.report(rule, f"{'.'.join(span.path)[:80]} cannot be read: {str(error)[:80]}", span.start)


def _index(path: tuple[str, ...], default: int) -> int:
    """The number of a vCPU: the innermost key that is one, or that ends with one."""
    numbers = (match[1] for key in reversed(path) if (match := _NUMBERED.fullmatch(key)))
    return int(next(numbers, default))


def _vcpu(index: int, state: dict[str, Any], problems: Problems, offset: int) -> VcpuSnapshot:
    gathered = Gathered(index, problems)

    def wrong(what: str) -> None:
        problems.report("malformed", what, offset, index)

    for id, data in core_registers(state[VCPU_KEY], wrong):
        gathered.add(id, data)
    for name in ("sys_regs", "system_registers"):
        for entry in _list(state, name, wrong):
            _add_system(gathered, entry, wrong)
    for name in WIDE_LISTS:
        for entry in _list(state, name, wrong):
            _add_wide(gathered, entry, wrong)
    if not gathered.registers:
        raise BadBlob(f"vCPU {index} has no registers", offset)
    gathered.drop_absent_v()
    return gathered.done(_mp_state(state.get("mp_state"), wrong))


def _list(state: Mapping[str, Any], name: str, wrong: Callable[[str], None]) -> list[Any]:
    value = state.get(name, [])
    if isinstance(value, list):
        return value
    wrong(f"{name} is not a list")
    return []


def _add_system(gathered: Gathered, entry: object, wrong: Callable[[str], None]) -> None:
    """A register of 32 or 64 bits: 16 bytes, or an object whose ``addr`` is the value."""
    if isinstance(entry, dict):
        id, value = entry.get("id"), entry.get("addr")
    else:
        data = as_bytes(entry)
        id, value = _PAIR.unpack(data) if data is not None and len(data) == _PAIR.size else (None, None)
    if is_u64(id) and is_u64(value):
        gathered.add_number(id, value)
    else:
        wrong("an entry of sys_regs is not a register")


def _add_wide(gathered: Gathered, entry: object, wrong: Callable[[str], None]) -> None:
    id, data = (entry.get("id"), as_bytes(entry.get("data"))) if isinstance(entry, dict) else (None, None)
    if is_u64(id) and data is not None:
        gathered.add(id, data)
    else:
        wrong("an entry of extended_regs is not a register")


def _mp_state(value: object, wrong: Callable[[str], None]) -> int | None:
    """KVM_MP_STATE_ as four bytes, or as a number in an object."""
    if isinstance(value, dict):
        value = value.get("mp_state")
    if value is None or (is_u64(value)):
        return value
    data = as_bytes(value)
    if data is None or len(data) != 4:
        wrong("mp_state is not a number of 4 bytes")
        return None
    return int.from_bytes(data, "little")


def _gic(path: tuple[str, ...], state: dict[str, Any], span: jsonspans.Span) -> dict[str, Any]:
    """The interrupt controller as an entry of ``devices``: how many values its lists have, and its single values."""
    name = next((key for key in reversed(path) if key.startswith("gic")), "gic")
    counts = {key: len(value) for key, value in state.items() if isinstance(value, list)}
    values = {key: value for key, value in state.items() if is_u64(value)}
    return {"name": name, "size_bytes": span.end - span.start, "counts": counts, "values": values}


def _take_config(snapshot: Snapshot, source: Source) -> None:
    """How many vCPUs the VM has, by its configuration: a snapshot with fewer is not whole."""
    import orjson

    try:
        config = orjson.loads(source.rest(MOST_CONFIG_BYTES))
    except (ValueError, BadBlob):
        snapshot.problems.append(Problem("malformed", "config.json is not JSON"))
        return
    cpus = config.get("cpus") if isinstance(config, dict) else None
    count = cpus.get("boot_vcpus") if isinstance(cpus, dict) else None
    if is_u64(count):
        snapshot.facts["boot_vcpus"] = count
        if count > len(snapshot.vcpus):
            text = f"config.json has {count} vCPUs, state.json {len(snapshot.vcpus)}"
            snapshot.problems.append(Problem("missing-vcpu", text))


FORMAT = Format("cloud-hypervisor", "cloud-hypervisor's state.json", recognises, read, read_folder)
