# SPDX-License-Identifier: MIT
"""Plain text: a register a line, ``id=hex``, the bytes as KVM_GET_ONE_REG transfers them.

The ID is a number or a name; ``=``, ``:`` or a space separates. Hex may begin with 0x and have runs ("00*8."). ``#``
begins a comment. ``[vcpu 1]`` begins the registers of another vCPU; those before the first such line are vCPU 0's.

>>> from kvmabi.snapshot import opening
>>> snapshot = opening.read_bytes(b"svcr = 0200000000000000  # ZA\\n0x6030000000100040: 0010000000000000\\n")
>>> snapshot.vcpus[0].value("svcr"), hex(snapshot.vcpus[0].value("pc"))
(2, '0x1000')
"""

from __future__ import annotations

import re
from functools import lru_cache

from kvmabi import hexruns, regid
from kvmabi.errors import UsageError
from kvmabi.model.row import size_of
from kvmabi.snapshot.formats.format import HEAD_BYTES, Format
from kvmabi.snapshot.formats.gathering import MOST_VCPUS, Gathered, Held, Problems, finished
from kvmabi.snapshot.formats.lines import Line, lines
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot
from kvmabi.snapshot.source import BadBlob, Source

MOST_BYTES = 64 << 20
"""400 vCPUs with ZA take as much."""
COMMENT = "#"
TCG = "# the registers of TCG"
"""The comment that says whose registers they are, if they are not a kernel's."""
_VCPU = re.compile(r"\[\s*vcpu\s+([0-9]{1,4})\s*\]", re.IGNORECASE)
_REGISTER = re.compile(r"\s*([^\s=:#]+)(?:\s*[=:]\s*|\s+)([^#]*)")
_BARE_ID = re.compile(r"[0-9a-fA-F]{16}")
_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F*.]*)")
UNKNOWN = frozenset({Fact.FEATURES, Fact.HOST, Fact.KERNEL, Fact.MP_STATE, Fact.EVENTS})


def recognises(head: bytes) -> bool:
    """Whether one of the first lines is a register that is known, or all that is shown is a comment."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith(COMMENT) or _VCPU.fullmatch(line.strip()):
            continue
        match = _REGISTER.fullmatch(line) or _REGISTER.match(line)
        if match and _HEX.fullmatch(match[2].strip()) and _id_of(match[1]) is not None:
            return True
    return len(head) >= HEAD_BYTES and text.lstrip().startswith(COMMENT) and "\0" not in text


def read(source: Source, *, numbers: bool = False) -> Snapshot:
    """Read a text. ``numbers``: values are numbers in hex, the highest digit first, not bytes in order."""
    problems = Problems()
    vcpus = {0: Gathered(0, problems)}
    vcpu, held = vcpus[0], Held()
    origin = Origin.UNKNOWN
    for line in lines(source, MOST_BYTES):
        if line.text == TCG:
            origin = Origin.TCG
        text = line.text.partition(COMMENT)[0].strip()
        if not text:
            continue
        if match := _VCPU.fullmatch(text):
            index = int(match[1])
            vcpu = vcpus.setdefault(index, Gathered(index, problems))
            if len(vcpus) > MOST_VCPUS:
                raise BadBlob(f"more than {MOST_VCPUS} vCPUs", line.start, "too-large")
            continue
        held.add(_take(vcpu, text, line, numbers), line.start)
    found = [vcpu.done() for vcpu in vcpus.values() if vcpu.registers]
    if not found:
        why = f": {problems[0].text}" if problems else ""
        raise BadBlob(f"is text without a register{why}", 0, "no-vcpu")
    return finished(Snapshot("text", found, origin, unknown=UNKNOWN, problems=problems))


def read_numbers(source: Source) -> Snapshot:
    """Read a text whose values are numbers."""
    return read(source, numbers=True)


def _take(vcpu: Gathered, text: str, line: Line, numbers: bool) -> bytes:
    """Take in one line; returns its register's data, b"" for a line that is a problem."""
    match = _REGISTER.fullmatch(text)
    if match is None:
        problem = f"line {line.number}, {text[:40]!r}, is not a register with a value"
        vcpu.problems.report("malformed", problem, line.start, vcpu.index)
        return b""
    id = _id_of(match[1])
    if id is None:
        problem = f"line {line.number}: there is no register {match[1][:40]!r}"
        vcpu.problems.report("unknown-register", problem, line.start, vcpu.index)
        return b""
    data = _data(vcpu, id, match[2].strip(), line, numbers)
    if data is not None:
        vcpu.add(id, data, line.start)
    return data or b""


def _data(vcpu: Gathered, id: int, value: str, line: Line, numbers: bool) -> bytes | None:
    """The bytes of a value that is of the register's size; None, and a problem, for any other."""
    match = _HEX.fullmatch(value)
    size_bytes, name = size_of(id), regid.name_of(id)
    try:
        if match is None:
            raise ValueError
        digits = match[1]
        if numbers:
            number = int(digits, 16) if len(digits) <= 4 * size_bytes else 1 << 8 * size_bytes
            if number >> 8 * size_bytes:
                text = f"line {line.number}: the number is larger than {name}, which has {size_bytes} bytes"
                vcpu.problems.report("wrong-size", text, line.start, vcpu.index, id)
                return None
            return number.to_bytes(size_bytes, "little")
        if "*" not in digits and len(digits) != 2 * size_bytes:
            text = (
                f"line {line.number}: {name} has {len(digits)} hex digits, where its {size_bytes} bytes take "
                f"{2 * size_bytes}"
            )
            vcpu.problems.report("wrong-size", text, line.start, vcpu.index, id)
            return None
        return hexruns.expand(digits)
    except ValueError:
        problem = f"line {line.number}: {value[:40]!r} is not hex"
        vcpu.problems.report("malformed", problem, line.start, vcpu.index, id)
        return None


@lru_cache(4096)
def _id_of(text: str) -> int | None:
    """The register of a name or number; 16 hex digits are an ID without its 0x. None if there is none."""
    if _BARE_ID.fullmatch(text):
        return int(text, 16)
    try:
        return regid.parse(text[:_LONGEST_NAME])
    except UsageError:
        return None


_LONGEST_NAME = 64


def write(snapshot: Snapshot, *, named: bool = False) -> str:
    """The text of a snapshot: ``id=hex`` lines, or (``named``) ``name=hex``; ``[vcpu N]`` where vCPU 0 is not alone."""
    indices = [vcpu.index for vcpu in snapshot.vcpus]
    out = [f"{TCG}\n"] if snapshot.origin is Origin.TCG else []
    for vcpu in snapshot.vcpus:
        if indices != [0]:
            out.append(f"[vcpu {vcpu.index}]\n")
        for id, data in vcpu.registers.items():
            out.append(f"{regid.name_of(id) if named else f'{id:#018x}'}={data.hex()}\n")
    return "".join(out)


FORMAT = Format("text", "text, a register a line", recognises, read, read_numbers=read_numbers)
