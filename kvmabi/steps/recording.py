# SPDX-License-Identifier: MIT
"""Events as the lines of a trace: what a program did, as steps with the answers that it got.

A record replays what the kernel saw: bytes, registers and numbers. What depends on the program itself is named: its
eventfds become those of the grammar, pointers become ``@p`` or an unmapped address. What no step can express stands in
the record as a comment that begins with ``# cannot be expressed``; a step that differs from what the program did has a
comment ``# inexact`` before it.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from typing import Final

from kvmabi import hexruns
from kvmabi.detail import DIRECTION_SHIFT as DIRECTION
from kvmabi.detail import FD_BYTES, READS, Detail, descriptor_places
from kvmabi.device.vm import FOREIGN_MEMORY
from kvmabi.device.watched import EVENTFD
from kvmabi.events import Event, Kind
from kvmabi.model.row import size_of
from kvmabi.steps.answers import stats_answer
from kvmabi.steps.grammar import (
    GUEST_MEMFD,
    LONG_MASK,
    MAX_ARGUMENT_BYTES,
    MAX_DEVICES,
    MAX_EVENTFDS,
    MAX_IDS,
    MAX_REGISTER_BYTES,
    MAX_VMS,
    MORE_EVENTFDS,
    OTHER_FILE,
    UNMAPPED,
    UNTOUCHED,
    pattern,
)
from kvmabi.steps.recordcopies import ADDRESS_MARK, around, faults, mapped_bytes, marked, slot_of
from kvmabi.steps.structs import COUNT, CREATE_DEVICE, DEVICE_ATTR, INIT, ONE_REG
from kvmabi.steps.trace import CANNOT, INEXACT, UNMODELLED

VALUE_BYTES = 8
"""The size of an attribute's value in the steps for attributes."""
Lines = Iterator[str]


class Inexpressible(Exception):
    """No step does what the program did; the text says what."""


class Recorder:
    """Watches the events of a detailed log and hands each line of the record, without its end, to ``write``."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._vms: dict[int, _Vm] = {}
        self._count = 0
        self._current: _Vm | None = None
        self._entering: set[tuple[int | None, int | None]] = set()
        self._eventfds: dict[str, str] = {}
        self._guest_memfd = ""

    def watch(self, event: Event) -> None:
        """Take in an event."""
        place = event.vm, event.vcpu
        if event.kind is Kind.RUN:
            self._entering.add(place)
        elif event.kind is Kind.RELEASED:
            self._released(event)
        elif event.kind is Kind.IOCTL:
            for line in self._lines(event):
                self._write(line)
            self._entering.discard(place)

    def _released(self, event: Event) -> None:
        vm = self._vms.pop(event.vm or 0, None)
        if vm is not None:
            for line in self._use(vm):
                self._write(line)
            self._write("c\tOK")

    def _lines(self, event: Event) -> Lines:
        """The record of an ioctl."""
        if event.reason == FOREIGN_MEMORY.reason:
            yield f"{CANNOT}{event.what} by another process than the one that created the VM"
            return
        if event.asked_for:
            yield f"{CANNOT}{event.what} that did not reach the kernel: {event.reason}"
            return
        try:
            yield from self._step(event)
        except Inexpressible as reason:
            yield f"{CANNOT}{reason}"

    def _step(self, event: Event) -> Lines:
        vm = self._vms.get(event.vm) if event.vm is not None else None
        if event.vm is not None and vm is None:
            raise Inexpressible(f"{event.what} on a VM that is not in this record")
        if vm is not None:
            yield from self._use(vm)
        if not event.modelled:
            yield f"{UNMODELLED}{event.reason}"
        file = self._file(event, vm)
        detail = event.detail
        if detail is None:
            if event.register is None:
                raise Inexpressible(f"{event.what}, of which the details are not known")
            yield _plain_access(event, file)
            return
        method = METHODS.get(event.what)
        if method is None:
            yield from self._other(event, detail, file)
        elif faults(detail):
            yield _with_number(event, file, UNMAPPED)
        else:
            yield from method(self, event, detail, file)

    def _use(self, vm: _Vm) -> Lines:
        if vm is not self._current:
            self._current = vm
            yield f"U {vm.number}\tOK"

    def _file(self, event: Event, vm: _Vm | None) -> str:
        if vm is None:
            return "s"
        if event.vcpu is not None:
            return str(vm.vcpu(event.vcpu))
        if event.detail is not None and event.detail.kind == "device":
            number = vm.devices.index(event.detail.device) if event.detail.device in vm.devices else MAX_DEVICES
            if number >= MAX_DEVICES:
                raise Inexpressible(f"{event.what} on device {number}: only the first {MAX_DEVICES} have a name")
            return f"d{number}"
        return "v"

    # --- what is created

    def _create_vm(self, event: Event, detail: Detail, file: str) -> Lines:
        if self._count >= MAX_VMS and not event.errno:
            raise Inexpressible(f"a VM: there can be {MAX_VMS}")
        yield f"C {detail.argument & LONG_MASK:x}\t{_answer(event)}"
        if detail.opened is not None:
            self._current = self._vms[detail.opened.number] = _Vm(self._count)
            self._count += 1

    def _create_vcpu(self, event: Event, detail: Detail, file: str) -> Lines:
        vm = self._vms[event.vm or 0]
        if detail.opened is not None and detail.opened.number in vm.vcpus:
            yield f"{INEXACT}the program could not receive the vCPU's descriptor before, which undid its creation"
        yield f"V {detail.argument}\t{_answer(event)}"
        if detail.opened is not None:
            vm.vcpus.append(detail.opened.number)

    def _create_device(self, event: Event, detail: Detail, file: str) -> Lines:
        kind, _fd, flags = CREATE_DEVICE.unpack(detail.before)
        yield f"D {kind} {flags}\t{_answer(event)}"
        if detail.opened is not None:
            self._vms[event.vm or 0].devices.append(detail.opened.number)

    # --- a vCPU's life

    def _init(self, event: Event, detail: Detail, file: str) -> Lines:
        target, *words = INIT.unpack(detail.before)
        letter, shown = ("i", words) if any(words[1:]) else ("I", words[:1])
        yield f"{letter} {file} {target} {' '.join(f'{word:x}' for word in shown)}\t{_answer(event)}"

    def _finalize(self, event: Event, detail: Detail, file: str) -> Lines:
        yield f"F {file} {int.from_bytes(detail.before, 'little', signed=True)}\t{_answer(event)}"

    def _run(self, event: Event, detail: Detail, file: str) -> Lines:
        if detail.argument:
            yield _with_number(event, file, detail.argument)
            return
        entered = (event.vm, event.vcpu) in self._entering
        if entered and not event.errno:
            yield f"{INEXACT}the guest ran until an exit; what it did is not in this record"
        yield f"{'E' if entered else 'R'} {file}\t{_answer(event)}"

    # --- registers

    def _get(self, event: Event, detail: Detail, file: str) -> Lines:
        id, addr = ONE_REG.unpack(detail.before)
        mapped = mapped_bytes(detail, addr)
        if event.errno == errno.EFAULT and mapped is not None:
            yield f"g {file} {id:x} {mapped}\t{_answer(event)}" if mapped else f"B {file} {id:x}\t{_answer(event)}"
        elif event.errno:
            touched = any(access.writes and access.data.strip(bytes((UNTOUCHED,))) for access in detail.pointed)
            yield f"G {file} {id:x}\t{_answer(event)}{' !touched' if touched else ''}"
        else:
            if event.data is None or not any(access.writes for access in detail.pointed):
                yield f"{INEXACT}the kernel read the buffer of this get instead of writing to it"
                yield f"G {file} {id:x}\tOK {hexruns.compress(bytes((UNTOUCHED,)) * size_of(id))}"
                return
            yield f"G {file} {id:x}\tOK {hexruns.compress(event.data[:MAX_REGISTER_BYTES])}"

    def _set(self, event: Event, detail: Detail, file: str) -> Lines:
        id, addr = ONE_REG.unpack(detail.before)
        mapped = mapped_bytes(detail, addr)
        if event.errno == errno.EFAULT and mapped is not None:
            if not mapped:
                yield f"b {file} {id:x}\t{_answer(event)}"
                return
            data = next(access.data for access in detail.pointed if access.faulted)
            if data != pattern(data[0], len(data)):
                yield f"{INEXACT}the {mapped} bytes that were mapped were {hexruns.compress(data)}"
            yield f"s {file} {id:x} {mapped} {data[0]}\t{_answer(event)}"
            return
        yield f"S {file} {id:x} {hexruns.compress(event.data or detail.offered) or '00'}\t{_answer(event)}"

    def _list(self, event: Event, detail: Detail, file: str) -> Lines:
        (room,) = COUNT.unpack(detail.before[: COUNT.size])
        writes = [access for access in detail.accesses if access.writes]
        (count,) = COUNT.unpack(writes[0].data) if writes and not writes[0].faulted else (room,)
        if event.errno == errno.EFAULT and len(writes) > 1:
            yield f"l {file} {room} {len(writes[1].data) // COUNT.size}\tEFAULT {count}"
            return
        ids = b"".join(access.data for access in writes[1:])
        if event.errno or count > MAX_IDS:
            yield f"L {file} {room}\t{_answer(event)} {count}"
            return
        listed = " ".join(f"{id:x}" for (id,) in COUNT.iter_unpack(ids))
        yield f"L {file} {room}\tOK {count} {listed}".rstrip()

    # --- attributes

    def _attr(self, event: Event, detail: Detail, file: str) -> Lines:
        flags, group, attr, addr = DEVICE_ATTR.unpack(detail.before)
        if flags or any(access.wanted > VALUE_BYTES or access.address != addr for access in detail.pointed):
            yield from self._other(event, detail, file)
            return
        letter = ATTR_LETTERS[event.what]
        value, got = "0", b""
        for access in detail.pointed:
            if access.faulted:
                value = "-"
            elif access.writes:
                got = access.data
            else:
                value = f"{int.from_bytes(access.data, 'little'):x}"
        answer = _answer(event)
        if letter == "q" and not event.errno:
            before = b"" if value == "-" else int(value, 16).to_bytes(VALUE_BYTES, "little")
            answer += f" {int.from_bytes(got + before[len(got) :], 'little'):x}"
        yield f"{letter} {file} {group} {attr:x} {value}\t{answer}"

    # --- the rest

    def _stats(self, event: Event, detail: Detail, file: str) -> Lines:
        if detail.opened is None:
            yield _with_number(event, file, detail.argument)
            return
        try:
            answer = stats_answer(detail.opened.contents)
        except struct.error:
            raise Inexpressible(f"{event.what}, whose file was cut") from None
        yield f"T {file}\t{answer}"

    def _other(self, event: Event, detail: Detail, file: str) -> Lines:
        """Any other ioctl: with a number, or with the bytes of its struct."""
        size_bytes = detail.size_bytes
        if not size_bytes or (not detail.accesses and not detail.before):
            yield _with_number(event, file, detail.argument)
            return
        if faults(detail):
            yield _with_number(event, file, UNMAPPED)
            return
        reads = [access for access in detail.accesses if not access.writes]
        if not reads and detail.accesses and detail.request >> DIRECTION == READS:
            answer = _answer(event)
            if not event.errno:
                answer += f" {hexruns.compress(detail.after[:MAX_REGISTER_BYTES])}"
            yield f"A {file} {detail.request:x}\t{answer}"
            return
        yield from self._with_bytes(event, detail, file)

    def _with_bytes(self, event: Event, detail: Detail, file: str) -> Lines:
        argument = bytearray(detail.before)
        for access in detail.accesses:
            place = access.address - detail.argument
            if not access.writes and access not in detail.pointed and place + len(access.data) > len(argument):
                argument[place:] = access.data
        marks = dict(self._descriptors(event, detail, argument))
        behind, after = b"", b""
        if detail.pointed:
            start = min(access.address for access in detail.pointed)
            slot = slot_of(detail, start)
            span = max(access.end for access in detail.pointed) - start
            if slot is None or span > MAX_ARGUMENT_BYTES:
                raise Inexpressible(f"{event.what} with {span} bytes behind its struct")
            if any(access.faulted for access in detail.pointed):
                argument[slot : slot + COUNT.size] = COUNT.pack(UNMAPPED)
                if any(access.data for access in detail.pointed):
                    yield f"{INEXACT}only a part of the memory behind the struct was mapped"
            else:
                marks[slot] = ADDRESS_MARK
                behind, after = around(detail.pointed, start)
        if len(argument) + len(behind) > MAX_ARGUMENT_BYTES:
            raise Inexpressible(f"{event.what} with {len(argument) + len(behind)} bytes")
        result = detail.result
        if detail.opened is not None:
            result = 0
            if event.what != "KVM_CREATE_GUEST_MEMFD":
                raise Inexpressible(f"{event.what}, which opened a file")
            self._guest_memfd = detail.opened.what
        answer = _answer(event)
        if not event.errno:
            answer = f"OK {result} {hexruns.compress(after)}".rstrip()
        yield f"Y {file} {detail.request:x} {marked(bytes(argument), marks)}{hexruns.compress(behind)}\t{answer}"

    def _descriptors(self, event: Event, detail: Detail, argument: bytearray) -> Iterator[tuple[int, str]]:
        """Where descriptors stand in the struct, and how the grammar names them."""
        for place in descriptor_places(event.what, bytes(argument)):
            number = int.from_bytes(argument[place : place + FD_BYTES], "little")
            looked_at = any(found.number & 0xFFFFFFFF == number for found in detail.descriptors)
            what = next((found.what for found in detail.descriptors if found.number & 0xFFFFFFFF == number), "")
            if what:
                yield place, f"@{self._name(what)}"
            elif looked_at:
                argument[place : place + FD_BYTES] = b"\xff" * FD_BYTES

    def _name(self, what: str) -> str:
        if not what.startswith(EVENTFD):
            return GUEST_MEMFD if what == self._guest_memfd else OTHER_FILE
        if what not in self._eventfds:
            number = len(self._eventfds)
            if number >= MORE_EVENTFDS:
                raise Inexpressible(f"an eventfd: there can be {MORE_EVENTFDS}")
            self._eventfds[what] = str(number) if number < MAX_EVENTFDS else f"e{number}."
        return self._eventfds[what]


class _Vm:
    """A VM of the record: its number, its vCPUs' IDs and its devices in the order of creation."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.vcpus: list[int] = []
        self.devices: list[int | None] = []

    def vcpu(self, id: int) -> int:
        """A vCPU's number by its ID: the one that was created last counts."""
        if id not in self.vcpus:
            raise Inexpressible(f"an ioctl on vCPU {id}, whose creation is not in this record")
        return len(self.vcpus) - 1 - self.vcpus[::-1].index(id)


def _plain_access(event: Event, file: str) -> str:
    """A get or a set that was only a copy."""
    data = hexruns.compress(event.data or b"")
    if event.what == "KVM_GET_ONE_REG":
        return f"G {file} {event.register:x}\tOK {data}"
    return f"S {file} {event.register:x} {data}\tOK"


def _answer(event: Event) -> str:
    return errno.errorcode.get(event.errno, str(event.errno)) if event.errno else "OK"


def _with_number(event: Event, file: str, argument: int) -> str:
    assert event.detail is not None
    result = event.detail.result
    answer = f"OK {result}" if not event.errno and result is not None else _answer(event)
    return f"X {file} {event.detail.request:x} {argument & LONG_MASK:x}\t{answer}"


ATTR_LETTERS: Final = {"KVM_HAS_DEVICE_ATTR": "h", "KVM_SET_DEVICE_ATTR": "o", "KVM_GET_DEVICE_ATTR": "q"}
METHODS: Final[dict[str, Callable[[Recorder, Event, Detail, str], Lines]]] = {
    "KVM_CREATE_VM": Recorder._create_vm,
    "KVM_CREATE_VCPU": Recorder._create_vcpu,
    "KVM_CREATE_DEVICE": Recorder._create_device,
    "KVM_ARM_VCPU_INIT": Recorder._init,
    "KVM_ARM_VCPU_FINALIZE": Recorder._finalize,
    "KVM_RUN": Recorder._run,
    "KVM_GET_ONE_REG": Recorder._get,
    "KVM_SET_ONE_REG": Recorder._set,
    "KVM_GET_REG_LIST": Recorder._list,
    "KVM_GET_STATS_FD": Recorder._stats,
    **dict.fromkeys(ATTR_LETTERS, Recorder._attr),
}
"""How an ioctl is recorded, by name; Recorder._other for all others."""
