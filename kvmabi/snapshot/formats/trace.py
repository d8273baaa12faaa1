# SPDX-License-Identifier: MIT
"""What a VMM read of its vCPUs: a trace of steps with their answers, or the log of ``kvmabi run --log``.

A vCPU's registers are what the KVM_GET_ONE_REG after its last KVM_GET_REG_LIST returned, in that order. If several VMs
were read, the one that was listed last and read counts: in a trace, ``new`` and ``create-vm`` begin another
one. A vCPU that was only written to is not in the snapshot.

>>> from kvmabi.snapshot import opening
>>> log = b"6 VM 1 vCPU 0 KVM_GET_REG_LIST: OK\\n7 VM 1 vCPU 0 KVM_GET_ONE_REG svcr = 0200*7.: OK\\n"
>>> opening.read_bytes(log).vcpus[0].value("svcr")
2
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from kvmabi import hexruns, regid, uapi
from kvmabi.errors import UsageError
from kvmabi.model.row import size_of
from kvmabi.profiles import features, load_kernel
from kvmabi.profiles.kernel import kernel_names
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.formats.gathering import (
    MOST_REGISTERS,
    MOST_VCPUS,
    Held,
    Problems,
    feature_bits,
    finished,
)
from kvmabi.snapshot.formats.lines import Line, lines
from kvmabi.snapshot.snapshot import Fact, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob, Source
from kvmabi.steps import grammar

MOST_BYTES = 1 << 30
MOST_VMS = 8
"""How many VMs are followed at once; of more, those that were listed or read first are forgotten."""
HOST_LINE, KERNEL_LINE = "# host ", "# kernel "
_EVENT = re.compile(
    r"[0-9]{1,18} VM ([0-9]{1,9}) vCPU ([0-9]{1,9}) (KVM_[A-Z0-9_]+)"
    r"(?: ([^\s=:]+))?(?: = ([0-9a-fA-F*.]*))?: ([A-Z0-9]+)"
)
_ANY_EVENT = re.compile(r"[0-9]{1,18}(?: VM [0-9]{1,9})?(?: vCPU [0-9]{1,9})? (?:KVM_|saved|restored|closed)")
_FIRST_EVENT_BYTES = 200
_OK = "OK"
_GET_MP_STATE = uapi.KVM_GET_MP_STATE
_TRACE_VM = 1
UNKNOWN = frozenset({Fact.EVENTS})


@dataclass
class _Vcpu:
    """What was read of one vCPU. ``listed``: a list came since, and the next read begins anew."""

    registers: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    listed: bool = False
    mp_state: int | None = None
    init: tuple[int, int] | None = None


class _Reads:
    """Follows the VMs of a trace or log."""

    def __init__(self) -> None:
        self.vms: dict[int, dict[int, _Vcpu]] = {}
        self.problems = Problems()
        self.held = Held()

    def vcpu(self, vm: int, index: int) -> _Vcpu:
        """A vCPU, of a VM that counts as the latest from now on."""
        vcpus = self.vms[vm] = self.vms.pop(vm, {})
        if len(self.vms) > MOST_VMS:
            self.forget(next(iter(self.vms)))
        if index not in vcpus and len(vcpus) >= MOST_VCPUS:
            raise BadBlob(f"more than {MOST_VCPUS} vCPUs", rule="too-large")
        return vcpus.setdefault(index, _Vcpu())

    def forget(self, vm: int) -> None:
        """The VM is not the one that the snapshot is of."""
        for vcpu in self.vms.pop(vm, {}).values():
            self.held.forget(vcpu.registers)

    def read(self, vcpu: _Vcpu, id: int, data: bytes, start: int) -> None:
        """A register was read."""
        if len(data) != size_of(id):
            text = f"{regid.name_of(id)} has {len(data)} bytes of data, where its ID says {size_of(id)}"
            self.problems.report("wrong-size", text, start, register=id)
            return
        if vcpu.listed:
            self.held.forget(vcpu.registers)
            vcpu.registers, vcpu.places, vcpu.listed = {}, {}, False
        if id not in vcpu.registers:
            self.held.add(data, start)
            if len(vcpu.registers) >= MOST_REGISTERS:
                raise BadBlob(f"more than {MOST_REGISTERS} registers of one vCPU", start, "too-large")
        vcpu.registers[id] = data
        vcpu.places[id] = start

    def latest(self) -> dict[int, _Vcpu]:
        """The vCPUs with registers of the VM that was listed or read last."""
        for vcpus in reversed(self.vms.values()):
            if found := {index: vcpu for index, vcpu in vcpus.items() if vcpu.registers}:
                return found
        return {}


def recognises(head: bytes) -> bool:
    """Whether a file begins with a trace's first line, or with an event."""
    start = head.lstrip()
    return start.startswith(HOST_LINE.encode()) or bool(
        _ANY_EVENT.match(start[:_FIRST_EVENT_BYTES].decode("utf-8", "replace"))
    )


def read(source: Source) -> Snapshot:
    """Read a trace or a log. Lines that are neither steps nor events are problems."""
    reads = _Reads()
    snapshot = Snapshot("trace", [], unknown=UNKNOWN, problems=reads.problems)
    is_trace: bool | None = None
    vms = _TraceVms()
    for line in lines(source, MOST_BYTES):
        if not line.text.strip():
            continue
        if is_trace is None:
            is_trace = line.text.startswith(HOST_LINE)
            snapshot.facts["kind"] = "trace" if is_trace else "log"
        if not is_trace:
            _take_event(reads, line)
        elif line.text.startswith("#"):
            snapshot.host = _named(line, HOST_LINE) or snapshot.host
            snapshot.kernel = _named(line, KERNEL_LINE) or snapshot.kernel
        else:
            _take_step(reads, line, vms)
    latest = reads.latest()
    if not latest:
        raise BadBlob("holds no vCPU: no register was read (KVM_GET_ONE_REG)", 0, "no-vcpu")
    snapshot.vcpus = [_snapshot(index, vcpu) for index, vcpu in latest.items()]
    _settle(snapshot, [vcpu.init for vcpu in latest.values()])
    return finished(snapshot)


def _named(line: Line, prefix: str) -> str:
    return line.text.removeprefix(prefix).strip()[:200] if line.text.startswith(prefix) else ""


class _TraceVms:
    """The numbers of a trace's VMs: ``current`` is the one that steps are about."""

    def __init__(self) -> None:
        self.current = self._last = _TRACE_VM
        self._first = _TRACE_VM + 1

    def new(self) -> None:
        """``new``: the numbers begin anew."""
        self.current = self._last = self._first = self._last + 1

    def close(self) -> None:
        """``close-all``."""
        self._first = self._last + 1

    def create(self) -> None:
        """``create-vm``."""
        self.current = self._last = self._last + 1

    def use(self, number: int) -> None:
        """``use-vm``."""
        self.current = self._first + number


def _take_step(reads: _Reads, line: Line, vms: _TraceVms) -> None:
    """Take one step."""
    text, _, answer = line.text.partition("\t")
    try:
        letter, words = grammar.parse(text)
    except ValueError as error:
        reads.problems.report("malformed", f"line {line.number}: {error}", line.start)
        return
    outcome, _, rest = answer.partition(" ")
    if outcome != _OK:
        return
    if letter == "N":
        vms.new()
    elif letter == "Z":
        vms.close()
    elif letter == "C":
        vms.create()
    elif letter == "U" and type(words[0]) is int:
        vms.use(words[0])
    if letter not in "GLIA" or type(words[0]) is not int:
        return
    vcpu = reads.vcpu(vms.current, words[0])
    if letter == "L":
        vcpu.listed = True
    elif letter == "I" and type(words[1]) is int and type(words[2]) is int:
        vcpu.init = words[1], words[2]
    elif letter == "G" and type(words[1]) is int:
        data = _octets(reads, rest.partition(" ")[0], line)
        if data is not None:
            reads.read(vcpu, words[1], data, line.start)
    elif letter == "A" and words[1] == _GET_MP_STATE:
        data = _octets(reads, rest, line)
        vcpu.mp_state = None if data is None else int.from_bytes(data[:4], "little")


def _take_event(reads: _Reads, line: Line) -> None:
    match = _EVENT.match(line.text)
    if match is None:
        if not _ANY_EVENT.match(line.text):
            reads.problems.report("malformed", f"line {line.number}, {line.text[:40]!r}, is not an event", line.start)
        return
    vm, index, what, name, value, outcome = match.groups()
    if outcome != _OK or what not in ("KVM_GET_REG_LIST", "KVM_GET_ONE_REG"):
        return
    vcpu = reads.vcpu(int(vm), int(index))
    if what == "KVM_GET_REG_LIST":
        vcpu.listed = True
        return
    id, data = _id_of(name or ""), _octets(reads, value or "", line)
    if id is None:
        text = f"line {line.number}: there is no register {(name or '')[:40]!r}"
        reads.problems.report("unknown-register", text, line.start)
    elif data is not None:
        reads.read(vcpu, id, data, line.start)


def _octets(reads: _Reads, text: str, line: Line) -> bytes | None:
    try:
        return hexruns.expand(text)
    except ValueError as error:
        reads.problems.report("malformed", f"line {line.number}: {error}", line.start)
        return None


@lru_cache(4096)
def _id_of(name: str) -> int | None:
    try:
        return regid.parse(name)
    except UsageError:
        return None


def _snapshot(index: int, vcpu: _Vcpu) -> VcpuSnapshot:
    return VcpuSnapshot(index, vcpu.registers, vcpu.mp_state, offsets=lambda: vcpu.places)


def _settle(snapshot: Snapshot, inits: list[tuple[int, int] | None]) -> None:
    """Target and features of the INITs, if each vCPU's is there, and what is not known."""
    unknown = set(snapshot.unknown)
    words = [init for init in inits if init is not None]
    bits = _bits_of(snapshot.kernel)
    known = sum(1 << bit for bit in bits.values())
    if len(words) == len(inits) and not any(word & ~known for _, word in words):
        snapshot.target = words[0][0] if words[0][0] >= 0 else None
        names = (name for name, bit in bits.items() if any(word >> bit & 1 for _, word in words))
        snapshot.features = features.lasting(names)
    else:
        unknown.add(Fact.FEATURES)
    for fact, is_known in (
        (Fact.HOST, snapshot.host),
        (Fact.KERNEL, snapshot.kernel),
        (Fact.MP_STATE, all(vcpu.mp_state is not None for vcpu in snapshot.vcpus)),
    ):
        if not is_known:
            unknown.add(fact)
    snapshot.unknown = frozenset(unknown)


def _bits_of(kernel: str) -> dict[str, int]:
    """The bits of features under a kernel: a built-in one only, because a name in a file is not a path to open."""
    if kernel not in kernel_names():
        return feature_bits()
    return {name: feature.bit for name, feature in load_kernel(kernel).features.items()}


FORMAT = Format("trace", "a trace of steps, or the log of ioctls", recognises, read)
