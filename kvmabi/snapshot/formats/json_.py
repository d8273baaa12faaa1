# SPDX-License-Identifier: MIT
"""kvmabi's JSON, what ``kvmabi blob info --json`` prints: written by ``document``, read by ``read``, without loss.

======================  ==============================================================================================
key                     what it is
======================  ==============================================================================================
format                  the name of the format that the snapshot was read from first ("model": saved from a vCPU here)
origin                  whose registers they are: "KVM", "TCG" or "unknown"
target                  the target of KVM_ARM_VCPU_INIT, or null
features                the names of its features, sorted, or null if they are unknown
host, kernel            names of profiles or free text, "" if unknown
sve_bits, sme_bits      the vector lengths in bits, [] without the extension, null if unknown
unknown                 what the format, or this file, cannot hold: names of Fact in lower case, sorted
facts                   what else a file says about the machine
devices                 other devices: an object each, with its "name", and "size_bytes" where known
problems                what was found wrong on reading: "rule", "text", and "offset", "vcpu", "register" (or null)
vcpus                   the vCPUs, an object each with these keys:
index                   its number
mp_state                KVM_MP_STATE_ as a number, or null if unknown
serror                  of a pending SError {"pending", "has_esr", "esr"}, or null if unknown
facts                   what else a file says about the vCPU
registers               in stored order, an object each: "id" as a string of hex, because JSON's readers lose bits of
                        large numbers; "name"; "data", the bytes in hex as KVM_GET_ONE_REG transfers them
======================  ==============================================================================================

``vcpus`` comes last, each register on a line. Readers ignore keys that they do not know, and "name", which is there to
be read by people; what is missing is unknown.

>>> from kvmabi.snapshot.snapshot import Snapshot, VcpuSnapshot
>>> snapshot = Snapshot("model", [VcpuSnapshot(0, {0x603000000013da12: bytes(8)})], features=frozenset({"sme"}))
>>> document(snapshot)["vcpus"][0]["registers"]
[{'id': '0x603000000013da12', 'name': 'svcr', 'data': '0000000000000000'}]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, TypeGuard

from kvmabi import regid
from kvmabi.snapshot.formats import jsonspans
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.formats.gathering import MOST_REGISTERS_IN_ALL, MOST_VCPUS, Gathered, Problems, finished
from kvmabi.snapshot.lengths import are_lengths
from kvmabi.snapshot.snapshot import Fact, Origin, Problem, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob, Source

VCPU_KEY = "registers"
MOST_REST_BYTES = 4 << 20
"""How much text there is at most apart from the vCPUs."""
_ID = re.compile(r"0x[0-9a-f]{1,16}", re.IGNORECASE)
_FACTS = {fact.name.lower(): fact for fact in Fact}


def document(snapshot: Snapshot) -> dict[str, Any]:
    """The JSON value of a snapshot."""
    return {**_head(snapshot), "vcpus": [_vcpu_document(vcpu) for vcpu in snapshot.vcpus]}


def write(snapshot: Snapshot) -> str:
    """The JSON text of a snapshot, each register on a line."""
    head = json.dumps(_head(snapshot), indent=2, ensure_ascii=True)
    vcpus = ",\n".join(_vcpu_text(vcpu) for vcpu in snapshot.vcpus)
    return f'{head[:-2]},\n  "vcpus": [\n{vcpus}\n  ]\n}}\n'


def recognises(head: bytes) -> bool:
    """Whether a file begins as an object of JSON: formats with keys of their own are asked before."""
    return head.lstrip()[:1] == b"{"


def read(source: Source) -> Snapshot:
    """Read what ``write`` wrote. Values of the wrong kind count as unknown and are problems."""
    text = source.rest(jsonspans.MOST_BYTES)
    problems = Problems()
    vcpus: dict[int, VcpuSnapshot] = {}
    spans: list[jsonspans.Span] = []
    total = 0
    for span in jsonspans.spans(text, {VCPU_KEY}):
        if span.is_string or span.path[:1] != ("vcpus",) or len(span.path) != 2:
            continue
        vcpu = _vcpu(text[span.start : span.end], span.start, len(spans), problems)
        spans.append(span)
        total += len(vcpu.registers)
        if total > MOST_REGISTERS_IN_ALL or len(spans) > MOST_VCPUS:
            raise BadBlob("more registers than the vCPUs of any VM have", span.start, "too-large")
        if vcpu.index in vcpus:
            problems.report("duplicate-vcpu", f"vCPU {vcpu.index} is there twice: the first one counts", span.start)
            continue
        vcpus[vcpu.index] = vcpu
    if not vcpus:
        raise BadBlob("is JSON without vcpus that have registers", 0, "no-vcpu")
    return _snapshot(_rest(text, spans), list(vcpus.values()), problems)


def _head(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "format": snapshot.format,
        "origin": snapshot.origin.value,
        "target": snapshot.target,
        "features": None if snapshot.features is None else sorted(snapshot.features),
        "host": snapshot.host,
        "kernel": snapshot.kernel,
        "sve_bits": None if snapshot.sve_bits is None else list(snapshot.sve_bits),
        "sme_bits": None if snapshot.sme_bits is None else list(snapshot.sme_bits),
        "unknown": sorted(fact.name.lower() for fact in snapshot.unknown),
        "facts": _plain(snapshot.facts),
        "devices": _plain(snapshot.devices),
        "problems": [_problem_document(problem) for problem in snapshot.problems],
    }


def _plain(value: object) -> Any:
    """A value of a reader's facts in what JSON has: sets are sorted lists, bytes are hex, anything else is its text."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(str(each) for each in value)
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _problem_document(problem: Problem) -> dict[str, Any]:
    register = None if problem.register is None else f"{problem.register:#018x}"
    return {
        "rule": problem.rule,
        "text": problem.text,
        "offset": problem.offset,
        "vcpu": problem.vcpu,
        "register": register,
    }


def _vcpu_head(vcpu: VcpuSnapshot) -> dict[str, Any]:
    serror = None
    if vcpu.serror is not None:
        pending, has_esr, esr = vcpu.serror
        serror = {"pending": pending, "has_esr": has_esr, "esr": esr}
    return {"index": vcpu.index, "mp_state": vcpu.mp_state, "serror": serror, "facts": _plain(vcpu.facts)}


def _vcpu_document(vcpu: VcpuSnapshot) -> dict[str, Any]:
    registers = [
        {"id": f"{id:#018x}", "name": regid.name_of(id), "data": data.hex()} for id, data in vcpu.registers.items()
    ]
    return {**_vcpu_head(vcpu), VCPU_KEY: registers}


def _vcpu_text(vcpu: VcpuSnapshot) -> str:
    lines = ",\n".join(
        f'        {{"id": "{id:#018x}", "name": "{regid.name_of(id)}", "data": "{data.hex()}"}}'
        for id, data in vcpu.registers.items()
    )
    return f'    {json.dumps(_vcpu_head(vcpu))[:-1]}, "{VCPU_KEY}": [\n{lines}\n    ]}}'


def _parsed(text: bytes, offset: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadBlob(f"is not JSON: {str(error)[:80]}", offset) from None


def _rest(text: bytes, spans: Iterable[jsonspans.Span]) -> dict[str, Any]:
    """What the outermost object has apart from the vCPUs that were read."""
    parts, at = [], 0
    for span in spans:
        parts.append(text[at : span.start])
        at = span.end
    rest = b"null".join([*parts, text[at:]])
    if len(rest) > MOST_REST_BYTES:
        raise BadBlob(f"more than {MOST_REST_BYTES >> 20} MiB of JSON apart from the vCPUs", 0, "too-large")
    jsonspans.check_span(rest, 0)
    parsed: dict[str, Any] = _parsed(rest, 0)
    return parsed


def _vcpu(text: bytes, offset: int, place: int, problems: Problems) -> VcpuSnapshot:
    jsonspans.check_span(text, offset)
    value = _parsed(text, offset)
    index = value.get("index")
    index = index if _is_number(index) and index < 1 << 16 else place
    gathered = Gathered(index, problems)
    registers = value[VCPU_KEY]
    for entry in registers if isinstance(registers, list) else [None]:
        id, data = (entry.get("id"), entry.get("data")) if isinstance(entry, dict) else (None, None)
        try:
            if not isinstance(id, str) or not isinstance(data, str) or not _ID.fullmatch(id):
                raise ValueError
            gathered.add(int(id, 16), bytes.fromhex(data), offset, any_size=True)
        except ValueError:
            problems.report("malformed", f"{str(entry)[:60]} is not a register", offset, index)
    vcpu = gathered.done(_number(value, "mp_state", problems))
    serror = value.get("serror")
    if isinstance(serror, dict):
        vcpu.serror = (
            bool(serror.get("pending")),
            bool(serror.get("has_esr")),
            _number(serror, "esr", problems) or 0,
        )
    facts = value.get("facts")
    vcpu.facts = facts if isinstance(facts, dict) else {}
    return vcpu


def _snapshot(value: dict[str, Any], vcpus: list[VcpuSnapshot], problems: Problems) -> Snapshot:
    """The snapshot with the values of the outermost object."""
    names = _strings(value.get("features"))
    facts, devices = value.get("facts"), value.get("devices")
    origin = value.get("origin")
    unknown = _strings(value.get("unknown"))
    snapshot = Snapshot(
        format=_string(value, "format") or "json",
        vcpus=vcpus,
        origin=next((each for each in Origin if each.value == origin), Origin.UNKNOWN),
        features=None if names is None else frozenset(names),
        target=_number(value, "target", problems),
        host=_string(value, "host"),
        kernel=_string(value, "kernel"),
        sve_bits=_bits(value, "sve_bits", problems),
        sme_bits=_bits(value, "sme_bits", problems),
        unknown=frozenset(_FACTS[name] for name in unknown or () if name in _FACTS),
        facts=facts if isinstance(facts, dict) else {},
        devices=[each for each in devices if isinstance(each, dict)] if isinstance(devices, list) else [],
        problems=[*_problems(value), *problems],
    )
    return snapshot if unknown is not None else _with_unknown(snapshot)


def _with_unknown(snapshot: Snapshot) -> Snapshot:
    """A snapshot from JSON that does not say what is unknown: what it has no value for."""
    missing = {
        Fact.FEATURES: snapshot.features is None,
        Fact.HOST: not snapshot.host,
        Fact.KERNEL: not snapshot.kernel,
        Fact.MP_STATE: any(vcpu.mp_state is None for vcpu in snapshot.vcpus),
        Fact.EVENTS: any(vcpu.serror is None for vcpu in snapshot.vcpus),
    }
    snapshot.unknown = frozenset(fact for fact, is_missing in missing.items() if is_missing)
    return finished(snapshot)


def _is_number(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 64


def _number(value: dict[str, Any], key: str, problems: Problems) -> int | None:
    number = value.get(key)
    if number is None or _is_number(number):
        return number
    problems.report("malformed", f"{key} is not a number of 64 bits")
    return None


def _string(value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""


def _strings(value: object) -> list[str] | None:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else None


def _bits(value: dict[str, Any], key: str, problems: Problems) -> tuple[int, ...] | None:
    lengths = value.get(key)
    if lengths is None:
        return None
    if isinstance(lengths, list) and all(map(_is_number, lengths)) and are_lengths(lengths):
        return tuple(lengths)
    problems.report("malformed", f"{key} is not a list of vector lengths")
    return None


def _problems(value: dict[str, Any]) -> list[Problem]:
    found = value.get("problems")
    read = []
    for each in found if isinstance(found, list) else []:
        if not isinstance(each, dict) or not isinstance(each.get("rule"), str) or not isinstance(each.get("text"), str):
            continue
        offset, vcpu, register = each.get("offset"), each.get("vcpu"), each.get("register")
        read.append(
            Problem(
                each["rule"],
                each["text"],
                offset if _is_number(offset) else None,
                vcpu if _is_number(vcpu) else None,
                int(register, 16) if isinstance(register, str) and _ID.fullmatch(register) else None,
            )
        )
    return read


FORMAT = Format("json", "JSON of kvmabi", recognises, read)
