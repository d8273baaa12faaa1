# SPDX-License-Identifier: MIT
"""What is shared with clients, and what a client can do with it: harm itself, and nobody else."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvmabi
from interpose.rawclient import RawClient, serving
from kvmabi import regid, uapi
from kvmabi.device import SystemFile
from kvmabi.events import Event, EventLog, Kind
from kvmabi.interpose import share
from kvmabi.interpose.protocol import EVENTS, IDENTITY, Flag, Message
from kvmabi.interpose.ring import Broken, decode, pages
from kvmabi.interpose.rowfiles import RowFiles, encode
from kvmabi.interpose.server import Server
from kvmabi.interpose.share import EVENT, ROW, ROWS, EventKind, Word
from kvmabi.model import state
from kvmabi.model.registermap import RegisterMap

X0 = regid.parse("x0")
PSTATE = regid.parse("pstate")
ONE_REG = struct.Struct("=QQ")


def identity(fd: int) -> bytes:
    status = os.fstat(fd)
    return IDENTITY.pack(status.st_dev, status.st_ino)


class Sharer:
    """A client with a vCPU that it shares, without the interposer."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.vm = client.make(client.open(), uapi.KVM_CREATE_VM)
        self.vcpu = client.make(self.vm, uapi.KVM_CREATE_VCPU)
        init = ctypes.create_string_buffer(uapi.ffi.sizeof("struct kvm_vcpu_init"))
        assert client.ioctl(self.vm, uapi.KVM_ARM_PREFERRED_TARGET, ctypes.addressof(init)).error == 0
        assert client.ioctl(self.vcpu, uapi.KVM_ARM_VCPU_INIT, ctypes.addressof(init)).error == 0
        self.fd = self.fetch(Message.SHARE)
        self.memory = mmap.mmap(self.fd, share.FILE_BYTES)

    def fetch(self, message: Message) -> int:
        self.client.send(message, identity=identity(self.vcpu))
        reply = self.client.receive()
        assert reply.flags == Flag.FD
        assert reply.fd is not None
        return reply.fd

    def word(self, word: Word, value: int) -> None:
        struct.pack_into("=Q", self.memory, share.HEADER_AT + 8 * word, value)

    def read(self, word: Word) -> int:
        (value,) = struct.unpack_from("=Q", self.memory, share.HEADER_AT + 8 * word)
        assert isinstance(value, int)
        return value

    def leave(self, place: int, *fields: int, data: bytes = b"") -> int:
        """Write an event into the ring; returns where the next begins."""
        EVENT.pack_into(self.memory, share.EVENTS_AT + place, *fields)
        start = share.EVENTS_AT + place + EVENT.size
        self.memory[start : start + len(data)] = data
        return place + EVENT.size + (len(data) + 7 & ~7)

    def set(self, id: int, data: bytes) -> int:
        """KVM_SET_ONE_REG by the server: its errno."""
        value = ctypes.create_string_buffer(data, len(data))
        reg = ctypes.create_string_buffer(ONE_REG.pack(id, ctypes.addressof(value)))
        return self.client.ioctl(self.vcpu, uapi.KVM_SET_ONE_REG, ctypes.addressof(reg)).error

    def settled(self) -> bytes:
        """The marks of settled registers."""
        start = share.HEADER_AT + share.SETTLED_AT
        return self.memory[start : start + share.SETTLED_BYTES]

    def get_x0(self, *, events: bool = False) -> bytes:
        value = ctypes.create_string_buffer(8)
        reg = ctypes.create_string_buffer(ONE_REG.pack(X0, ctypes.addressof(value)))
        message = Message.IOCTL | (EVENTS if events else 0)
        self.client.send(message, uapi.KVM_GET_ONE_REG, identity(self.vcpu), ctypes.addressof(reg))
        assert self.client.receive().error == 0
        return value.raw

    def close(self) -> None:
        self.memory.close()
        for fd in (self.fd, self.vcpu, self.vm):
            os.close(fd)


@contextmanager
def sharing(folder: Path, cookie: bytes) -> Iterator[Sharer]:
    with RawClient(folder, cookie=cookie) as client:
        sharer = Sharer(client)
        yield sharer
        sharer.close()


@pytest.fixture
def good(server: Server, tmp_path: Path) -> Iterator[Sharer]:
    """A client that must be served all the time, and keeps its register."""
    with sharing(tmp_path, b"good" * 4) as sharer:
        sharer.memory[share.REGISTERS_AT : share.REGISTERS_AT + 8] = b"mine now"
        yield sharer
        assert sharer.get_x0() == b"mine now"
        assert sharer.client.works()
    assert server.failures == 0


@pytest.fixture
def bad(good: Sharer, tmp_path: Path) -> Iterator[Sharer]:
    with sharing(tmp_path, b"evil" * 4) as sharer:
        yield sharer


def test_event_of_a_client(good: Sharer, log: EventLog) -> None:
    """An access that a client did by itself is an event, before that of its next ioctl; the ring is free again."""
    end = good.leave(0, X0, 5, EventKind.GOT, 8, data=b"mine now")
    good.word(Word.WRITTEN, end)
    good.get_x0(events=True)
    own = [event for event in log.events if event.register == X0]
    assert [(event.what, event.data) for event in own] == [("KVM_GET_ONE_REG", b"mine now")] * 2
    assert own[0].number < own[1].number
    assert good.read(Word.DRAINED) == end


@pytest.mark.parametrize(
    "fields",
    [
        (X0, 0, 0, 8),
        (X0, 0, 99, 8),
        (X0, 0, EventKind.GOT, 257),
        (X0, 0, EventKind.SET, (1 << 32) - 1),
        (X0, 0, EventKind.SET, 256),
    ],
)
def test_broken_event(bad: Sharer, fields: tuple[int, ...], log: EventLog) -> None:
    """An event that breaks the layout ends the sharing; the server answers the client from then on."""
    bad.leave(0, *fields)
    bad.word(Word.WRITTEN, 32)
    bad.get_x0(events=True)
    assert bad.read(Word.MAP) == 0
    assert not any(event.data == b"" for event in log.events)


@pytest.mark.parametrize("written", [1, share.EVENTS_BYTES + 1, 1 << 63, (1 << 64) - 1])
def test_lies_about_the_ring(bad: Sharer, written: int) -> None:
    """Positions that cannot be: the client is served, without its ring."""
    bad.word(Word.WRITTEN, written)
    bad.get_x0(events=True)
    assert bad.read(Word.MAP) == 0
    bad.word(Word.WRITTEN, 0)
    bad.get_x0(events=True)


def test_event_of_no_register(bad: Sharer, log: EventLog) -> None:
    """An event of a register that the vCPU does not have, or with another size, is left out."""
    before = len(log.events)
    end = bad.leave(0, regid.parse("za.h[0]"), 0, EventKind.GOT, 256, data=bytes(256))
    end = bad.leave(end, X0, 0, EventKind.GOT, 4, data=bytes(8))
    bad.word(Word.WRITTEN, end)
    bad.get_x0(events=True)
    assert len(log.events) == before + 1
    assert bad.read(Word.MAP) != 0


@pytest.mark.slow
def test_scribbles(bad: Sharer, server: Server) -> None:
    """Random bytes in registers, header and ring, again and again, between ioctls."""
    dice = random.Random(7)
    for _ in range(300):
        bad.memory[share.EVENTS_AT :] = dice.randbytes(share.FILE_BYTES - share.EVENTS_AT)
        bad.memory[share.REGISTERS_AT : share.REGISTERS_AT + 4096] = dice.randbytes(4096)
        for word in Word:
            bad.word(word, dice.choice([dice.getrandbits(64), dice.getrandbits(12), 0]))
        bad.get_x0(events=True)
    assert server.failures == 0


def test_the_size_is_sealed(bad: Sharer) -> None:
    """A client can neither truncate its vCPU's file nor grow it nor lift the seals."""
    for size in (0, share.HEADER_AT, share.FILE_BYTES + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(bad.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(bad.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_rows_are_sealed(bad: Sharer) -> None:
    """All vCPUs in a mode share one file of rows, which nobody can change."""
    fd = bad.fetch(Message.MAP)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, os.fstat(fd).st_size)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    assert ROWS.unpack(os.pread(fd, ROWS.size, 0))[0] == bad.read(Word.MAP)
    os.close(fd)


def test_only_the_owner_shares(good: Sharer, tmp_path: Path) -> None:
    """Another address space, and files that are not vCPUs, get nothing to map."""
    with RawClient(tmp_path, cookie=b"else" * 4) as other:
        for message in (Message.SHARE, Message.MAP):
            for fd in (good.vcpu, good.vm, 0):
                other.send(message, identity=identity(fd))
                assert other.receive() == (-1, 0, Flag.FOREIGN, None)


def test_client_that_dies(good: Sharer, tmp_path: Path, log: EventLog) -> None:
    """Its events are recorded, its vCPU is closed, its memory is released."""
    with sharing(tmp_path, b"dies" * 4) as gone:
        end = gone.leave(0, X0, 0, EventKind.SET, 8, data=bytes(8) + b"new text")
        gone.word(Word.WRITTEN, end)
        number = log.events[-1].vm
    while not any(event.kind is Kind.CLOSED and event.vm == number for event in list(log.events)):
        good.get_x0()
    kept = [event for event in log.events if event.vm == number]
    assert [event.data for event in kept if event.register == X0] == [b"new text"]


def test_another_vcpus_ring_comes_first(good: Sharer, bad: Sharer, log: EventLog) -> None:
    """What one client did before another's ioctl is recorded before it, though it does not say so."""
    bad.word(Word.WRITTEN, bad.leave(0, X0, 0, EventKind.GOT, 8, data=b"the evil"))
    good.get_x0()
    own = [event.data for event in log.events if event.register == X0]
    assert own == [b"the evil", b"mine now"]


def test_source_of_late_events(good: Sharer, log: EventLog) -> None:
    """A watcher finds the registers as they were: a set that came later is taken back, one before is not."""
    seen: list[bytes] = []

    def watch(event: Event) -> None:
        if event.register == X0:
            seen.append(event.registers[X0])

    log.watchers.append(watch)
    good.memory[share.REGISTERS_AT : share.REGISTERS_AT + 8] = b"third   "
    end = good.leave(0, X0, 0, EventKind.GOT, 8, data=b"mine now")
    end = good.leave(end, X0, 0, EventKind.SET, 8, data=b"mine nowsecond  ")
    end = good.leave(end, X0, 0, EventKind.SET, 8, data=b"second  third   ")
    good.word(Word.WRITTEN, end)
    assert good.get_x0(events=True) == b"third   "
    assert seen == [b"mine now", b"second  ", b"third   ", b"third   "]
    good.memory[share.REGISTERS_AT : share.REGISTERS_AT + 8] = b"mine now"


def test_no_events_wanted(tmp_path: Path, system: SystemFile, log: EventLog) -> None:
    """Without watchers a client leaves no events."""
    log.kept = 0
    with serving(system, tmp_path), sharing(tmp_path, b"idle" * 4) as sharer:
        assert sharer.read(Word.WANTED) == share.Wanted.NO_EVENTS


@pytest.fixture
def regmap() -> Iterator[RegisterMap]:
    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve", "sme"})
        vcpu.finalize()
        vcpu["svcr"] = 3
        map = vcpu._file.vcpu.map
        assert map is not None
        yield map


def test_rows_are_the_plain_ones(regmap: RegisterMap) -> None:
    """The file has exactly the accesses that are copies; VM-wide registers cannot be set there."""
    content = encode(9, regmap)
    number, count = ROWS.unpack_from(content)
    rows = list(ROW.iter_unpack(content[ROWS.size :]))
    assert (number, count) == (9, len(rows))
    assert [id for id, *_ in rows] == sorted(id for id, row in regmap.rows.items() if row.plain_get or row.plain_set)
    for id, place, get_bytes, set_bytes in rows:
        row = regmap.row(id)
        assert place == row.offset
        assert get_bytes == (row.size_bytes if row.plain_get else 0)
        assert set_bytes == (row.valid_bytes if row.plain_set else 0)
        assert not (row.shared and set_bytes)


def test_numbers_of_maps(regmap: RegisterMap) -> None:
    """A map keeps its number, and a number is never used twice."""
    files = RowFiles()
    first = files.number(regmap)
    assert files.number(regmap) == first
    files.close()
    assert files.number(regmap) > first


def test_ring_wraps() -> None:
    """An event that would reach beyond the end of the ring is at its start."""
    ring = bytearray(share.EVENTS_BYTES)
    start = share.EVENTS_BYTES - share.MOST_EVENT_BYTES + 8
    EVENT.pack_into(ring, 0, X0, 1, EventKind.GOT, 8)
    end = share.EVENTS_BYTES + EVENT.size + 8
    (entry,) = decode(ring, start, end)
    assert (entry.id, entry.end) == (X0, end)
    with pytest.raises(Broken):
        decode(ring, start, end - 1)


def test_pages_of_the_ring() -> None:
    """Only whole pages between two positions are given back, in two runs where the ring wraps."""
    assert pages(1, 4095, 4096) == []
    assert pages(0, share.EVENTS_BYTES, 4096) == [(0, share.EVENTS_BYTES)]
    assert pages(share.EVENTS_BYTES - 8192, share.EVENTS_BYTES + 5000, 4096) == [
        (share.EVENTS_BYTES - 8192, 8192),
        (0, 4096),
    ]


def test_kill_of_a_vm_is_published(good: Sharer) -> None:
    """A dead VM's vCPUs are the server's to answer: EIO."""
    arguments = ctypes.create_string_buffer(struct.pack("=III", uapi.KVM_DEV_TYPE_ARM_VGIC_V3, 0, 0))
    with_gic = Sharer(good.client)
    assert good.client.ioctl(with_gic.vm, uapi.KVM_CREATE_DEVICE, ctypes.addressof(arguments)).error == 0
    assert with_gic.read(Word.MAP) != 0
    assert good.client.ioctl(with_gic.vcpu, uapi.KVM_RUN).error != 0
    assert good.client.ioctl(with_gic.vcpu, uapi.KVM_GET_MP_STATE).error == errno.EIO
    assert with_gic.read(Word.MAP) == 0
    with_gic.close()


def test_settled_registers(good: Sharer) -> None:
    """A value that a rule has accepted is settled, a refused one is not; another ioctl on the VM unsettles all."""
    assert good.set(X0, b"mine now") == 0
    assert not any(good.settled())
    assert good.set(PSTATE, (4).to_bytes(8, "little")) == 0
    assert sum(bits.bit_count() for bits in good.settled()) == 1
    place = state.PSTATE // 4
    assert good.settled()[place // 8] >> place % 8 & 1
    before = good.settled()
    assert good.set(PSTATE, (0x1F).to_bytes(8, "little")) == errno.EINVAL
    assert good.settled() == before
    mp_state = ctypes.create_string_buffer(4)
    assert good.client.ioctl(good.vcpu, uapi.KVM_SET_MP_STATE, ctypes.addressof(mp_state)).error == 0
    assert not any(good.settled())
