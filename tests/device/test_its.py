# SPDX-License-Identifier: MIT
"""An ITS between a VMM's memory and the model: real memory, hostile tables, and a bound on the work of one ioctl."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

import pytest
from golden import its_scripts as its
from golden.its_scripts import GUEST, VALID

import kvmabi
from kvmabi import uapi
from kvmabi.device import open_system
from kvmabi.events import EventLog
from kvmabi.fuzz.its import COLLECTIONS, DEVICES, EVENTS, PENDING, PROPERTIES
from kvmabi.model import guestmemory
from kvmabi.profiles import load_host, load_kernel
from kvmabi.steps.doer import Doer
from kvmabi.steps.modelport import ModelPort

QUEUE_BYTES, COMMAND_BYTES, MAX_EVENTS = 1 << 20, 32, 512
SYNC, INVALL = 0x5, 0xD


def opened(kernel: str = "linux-7.3") -> Doer:
    """A host under a kernel, on which steps are done."""
    return Doer(ModelPort(open_system(load_host("neoverse-v1"), load_kernel(kernel), EventLog(kept=0))))


@pytest.fixture
def model() -> Iterator[Doer]:
    doer = opened()
    yield doer
    doer.close()


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower bound, which makes the tests short; it is above what a queue of the largest size needs."""
    monkeypatch.setattr(guestmemory, "MOST_STEPS", 1 << 16)


def done(doer: Doer, steps: list[str]) -> str:
    """Do steps; returns the last answer, and why it is one of an error."""
    *_, last = map(doer.do, steps)
    return last if last.startswith("OK") else f"{last}: {doer.reason}"


def test_tables_lie_in_the_callers_memory() -> None:
    """A save writes, and a restore reads, the memory of the VMM that its slot has."""
    with kvmabi.open(host="neoverse-v1") as kvm, mmap.mmap(-1, its.SIZE_BYTES) as memory:
        vm = kvm.create_vm()
        vm.create_vcpu(0).init()
        address = int(uapi.ffi.cast("uintptr_t", uapi.ffi.from_buffer(memory)))
        kvm.ioctl(vm.fd, uapi.KVM_SET_USER_MEMORY_REGION, struct.pack("=IIQQQ", 0, 0, GUEST, its.SIZE_BYTES, address))
        gic, translator = (_create(kvm, vm.fd, kind) for kind in (7, 8))
        for fd, group, number, value in (
            *((gic, 0, 2, 0x8000000), (gic, 0, 3, 0x80A0000), (gic, 4, 0, 0), (translator, 0, 4, 0x8080000)),
            *((gic, 5, 0x70, GUEST + PROPERTIES | 15), (gic, 5, 0x78, GUEST + PENDING), (gic, 5, 0, 1)),
            *((translator, 8, 0x100, VALID | GUEST + DEVICES), (translator, 8, 0x108, VALID | GUEST + COLLECTIONS)),
            *((translator, 8, 0x80, VALID | GUEST), (translator, 8, 0, 1)),
        ):
            _set(kvm, fd, group, number, value)
        commands = [its.mapd(1, GUEST + EVENTS, 5), its.mapc(0, 0), its.mapti(1, 3, 8192, 0)]
        memory[: 32 * len(commands)] = b"".join(struct.pack("<4Q", *command) for command in commands)
        _set(kvm, translator, 8, 0x88, 32 * len(commands))
        _set(kvm, translator, 4, 1, 0)
        assert struct.unpack_from("<Q", memory, DEVICES + 8) == (its.device(0, GUEST + EVENTS, 5),)
        assert struct.unpack_from("<Q", memory, COLLECTIONS) == (VALID,)
        assert struct.unpack_from("<Q", memory, EVENTS + 24) == (its.event(0, 8192, 0),)
        _set(kvm, translator, 4, 4, 0)
        _set(kvm, translator, 8, 0x100, VALID | GUEST + DEVICES)
        _set(kvm, translator, 8, 0x108, VALID | GUEST + COLLECTIONS)
        _set(kvm, translator, 4, 2, 0)
        memory[DEVICES : DEVICES + 16] = bytes(16)
        _set(kvm, translator, 4, 1, 0)
        assert struct.unpack_from("<Q", memory, DEVICES + 8) == (its.device(0, GUEST + EVENTS, 5),)


def _create(kvm: kvmabi.Kvm, vm: int, kind: int) -> int:
    changed = kvm.ioctl(vm, uapi.KVM_CREATE_DEVICE, struct.pack("=3I", kind, 0, 0))
    return int(struct.unpack("=3I", bytes(changed))[1])


def _set(kvm: kvmabi.Kvm, fd: int, group: int, number: int, value: int) -> None:
    place = uapi.ffi.new("__u64 *", value)
    address = int(uapi.ffi.cast("uintptr_t", place))
    kvm.ioctl(fd, uapi.KVM_SET_DEVICE_ATTR, struct.pack("=IIQQ", 0, group, number, address))


def test_a_first_level_of_pages_without_end_is_bounded(model: Doer) -> None:
    """Every entry of a first level leads to the same empty second level: a kernel reads gigabytes, kvmabi refuses."""
    entries = (VALID | GUEST + 0x100000).to_bytes(8, "little") * 256
    level_1 = [f"m {place:x} {entries.hex()}" for place in range(DEVICES, 0x100000, len(entries))]
    tables = its.bases(VALID | its.INDIRECT | GUEST + DEVICES | 0xE, 0)
    answer = done(model, [*its.vm(), *tables, *level_1, its.RESTORE])
    assert answer.startswith("ENOMEM")
    assert "does not model" in answer
    assert done(model, [its.RESET]) == "OK"


def test_thousands_of_devices_with_all_their_events_are_bounded(model: Doer, few_steps: None) -> None:
    """Each of 8,192 devices has the same full table of events: more entries than one ioctl looks at."""
    events = b"".join(its.event(1, 8192 + number, 0).to_bytes(8, "little") for number in range(MAX_EVENTS))
    table = [its.put(COLLECTIONS, VALID)]
    table += [f"m {EVENTS + 2048 * part:x} {events[2048 * part : 2048 * part + 2048].hex()}" for part in range(2)]
    devices = its.device(1, GUEST + EVENTS, 10).to_bytes(8, "little") * 256
    table += [f"m {place:x} {devices.hex()}" for place in range(DEVICES, COLLECTIONS, 2048)]
    answer = done(model, [*its.vm(), *its.lpis(), *its.bases(), *table, its.RESTORE])
    assert answer.startswith("ENOMEM")
    assert "does not model" in answer
    assert done(model, [its.SAVE]) == "OK"


@pytest.mark.parametrize(("code", "expected"), [(SYNC, "OK"), (INVALL, "ENOMEM")])
def test_a_full_queue_of_costly_commands_is_bounded(model: Doer, few_steps: None, code: int, expected: str) -> None:
    """32,767 commands are processed, but not if each of them goes through 512 LPIs."""
    tables = its.bases(VALID | GUEST + 0x140000, VALID | GUEST + 0x150000)[:2]
    start = [*its.vm(), *its.lpis(), *tables, f"o d1 8 80 {VALID | GUEST | 0xFF:x}", "o d1 8 0 1"]
    start[-2:-2] = ["o d0 5 0 0", f"o d0 5 70 {GUEST + 0x160000 | 15:x}", f"o d0 5 78 {GUEST + 0x170000:x}"]
    events = [its.mapti(1, number, 8192 + number, 0) for number in range(MAX_EVENTS)]
    first = [its.mapd(1, GUEST + 0x130000, 10), its.mapc(0, 0), *events]
    queue = b"".join(struct.pack("<4Q", *command) for command in first)
    queue += code.to_bytes(COMMAND_BYTES, "little") * (QUEUE_BYTES // COMMAND_BYTES - len(first))
    parts = [f"m {place:x} {queue[place : place + 4096].hex()}" for place in range(0, QUEUE_BYTES, 4096)]
    assert done(model, [*start, *parts, f"o d1 8 88 {QUEUE_BYTES - COMMAND_BYTES:x}"]).startswith(expected)


def test_a_queue_outside_the_memory_is_passed_over(model: Doer) -> None:
    """The ITS goes on behind commands that it cannot read, up to CWRITER; one beyond the queue is ignored."""
    start = [*its.vm(), *its.bases()[:2], f"o d1 8 80 {VALID | 1 << 51:x}", "o d1 8 0 1"]
    answers = list(map(model.do, [*start, "o d1 8 88 fe0", "q d1 8 90 0", "o d1 8 88 1000", "q d1 8 88 0"]))
    assert answers[-4:] == ["OK", "OK fe0", "OK", "OK fe0"]


def test_linux_6_1_cannot_save_an_event_without_a_collection() -> None:
    """That kernel oopses: the answer is not a kernel's, and later saves work again."""
    doer = opened("linux-6.1")
    unmapped = its.queue(its.mapc(0, 0, 0), first=len(its.SOME))
    answer = done(doer, [*its.MAPPED, *unmapped, its.SAVE])
    assert answer.startswith("EIO")
    assert "does not model" in answer
    assert done(doer, [its.RESET, *its.bases(), its.SAVE]) == "OK"
    doer.close()
