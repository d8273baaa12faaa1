# SPDX-License-Identifier: MIT
"""A laboratory for golden records: ioctls on the model's files, with a memory that can end where a record wants it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Any

from kvmabi import uapi
from kvmabi.device import VcpuFile, open_system
from kvmabi.device.structs import layout
from kvmabi.errors import KvmError
from kvmabi.events import EventLog
from kvmabi.model.row import size_of
from kvmabi.profiles import Host, Kernel, features
from kvmabi.steps.answers import name_of
from kvmabi.steps.modelport import ModelPort

BUFFER = 0x10000
STRUCT = 0x20000
LIST_ROOM = 4096


class LabMemory:
    """Memory with one struct, and a buffer that is partly mapped and may be read-only."""

    address_space = "lab"
    pid = 1

    def __init__(self) -> None:
        self.struct = bytearray(128)
        self.buffer = bytearray(8 * (LIST_ROOM + 1))
        self.mapped = len(self.buffer)
        self.base = BUFFER
        self.writable = True

    def put(self, name: str, *fields: int) -> None:
        """Put a struct, by its C name, into the memory."""
        data = layout(name).pack(*fields)
        self.struct[: len(data)] = data

    def end_of_page(self, mapped: int | None) -> None:
        """Make the buffer the last bytes of a page, this many (None: its full size)."""
        self.mapped = len(self.buffer) if mapped is None else mapped
        self.base = BUFFER if mapped is None else BUFFER - mapped

    def read(self, addr: int, size: int) -> bytes:
        """See Memory.read."""
        if STRUCT <= addr < STRUCT + len(self.struct):
            return bytes(self.struct[addr - STRUCT : addr - STRUCT + size])
        if self.base <= addr < self.base + self.mapped:
            return bytes(self.buffer[addr - self.base : min(addr - self.base + size, self.mapped)])
        return b""

    def write(self, addr: int, data: bytes) -> int:
        """See Memory.write."""
        if STRUCT <= addr < STRUCT + len(self.struct):
            self.struct[addr - STRUCT : addr - STRUCT + len(data)] = data
            return len(data)
        if not self.writable or not self.base <= addr < self.base + self.mapped:
            return 0
        done = min(len(data), self.mapped - (addr - self.base))
        self.buffer[addr - self.base : addr - self.base + done] = data[:done]
        return done


class LabVcpu:
    """A vCPU's descriptor; every method returns the errno's name, or "OK"."""

    def __init__(self, lab: Lab, fd: int) -> None:
        self.lab = lab
        self.fd = fd
        self.memory = lab.memory
        lab.port.immediate_exit(fd, True)

    @property
    def file(self) -> VcpuFile:
        """The device's side of it."""
        file = self.lab.port.file(self.fd)
        assert isinstance(file, VcpuFile)
        return file

    def init(self, features: str | int, target: int | None = None) -> str:
        """KVM_ARM_VCPU_INIT with features by the records' names or as a number."""
        word = features if isinstance(features, int) else self.lab.bits(features)
        target = self.lab.kernel.target if target is None else target
        return self.words(target, word)

    def words(self, target: int, *words: int) -> str:
        """KVM_ARM_VCPU_INIT with words of features."""
        self.memory.put("struct kvm_vcpu_init", target, *words, *(0,) * (7 - len(words)))
        return self.ioctl(uapi.KVM_ARM_VCPU_INIT)

    def finalize(self, what: int = 4) -> str:
        """KVM_ARM_VCPU_FINALIZE."""
        self.memory.put("int", what)
        return self.ioctl(uapi.KVM_ARM_VCPU_FINALIZE)

    def get(self, id: int, *, addr: int = BUFFER, fill: bytes = b"\xaa") -> str:
        """KVM_GET_ONE_REG into the buffer, full of one byte before."""
        size = min(size_of(id), self.memory.mapped)
        self.memory.buffer[:size] = fill * size
        self.memory.put("struct kvm_one_reg", id, addr)
        return self.ioctl(uapi.KVM_GET_ONE_REG)

    def set(self, id: int, data: bytes | int | None = None, *, addr: int = BUFFER) -> str:
        """KVM_SET_ONE_REG from the buffer, into which ``data`` goes first."""
        if isinstance(data, int):
            data = data.to_bytes(8, "little")
        if data is not None:
            self.memory.buffer[: len(data)] = data
        self.memory.put("struct kvm_one_reg", id, addr)
        return self.ioctl(uapi.KVM_SET_ONE_REG)

    def value(self, id: int) -> bytes:
        """A register's bytes, as a get transfers them; KvmError if it cannot be read."""
        result = self.get(id)
        if result != "OK":
            raise KvmError(getattr(errno, result))
        return bytes(self.memory.buffer[: size_of(id)])

    def number(self, id: int) -> int:
        """A register's value as a number."""
        return int.from_bytes(self.value(id)[:8], "little")

    def reg_list(self, room: int = LIST_ROOM, *, fill: bytes = b"\0") -> tuple[str, int, list[int]]:
        """KVM_GET_REG_LIST into an array full of one byte before: errno, count, IDs."""
        self.memory.buffer[:] = fill * len(self.memory.buffer)
        self.memory.buffer[:8] = room.to_bytes(8, "little")
        result = self.ioctl(uapi.KVM_GET_REG_LIST, BUFFER)
        count = int.from_bytes(self.memory.buffer[:8], "little")
        ids = memoryview(self.memory.buffer)[8 : 8 * (1 + count)].cast("Q").tolist() if result == "OK" else []
        return result, count, ids

    def run(self) -> str:
        """KVM_RUN with immediate_exit."""
        return self.ioctl(uapi.KVM_RUN, 0)

    def ioctl(self, request: int, arg: int = STRUCT) -> str:
        """Any ioctl of the file."""
        return self.lab.outcome(self.fd, request, arg)


class Lab:
    """A host under a kernel, and the VMs that a record needs; ``always`` names a feature that all vCPUs get."""

    def __init__(self, host: Host, kernel: Kernel, *, always: str = "") -> None:
        self.host, self.kernel, self.always = host, kernel, always
        self.memory = LabMemory()
        self.log = EventLog(kept=64)
        self.port = ModelPort(open_system(host, kernel, self.log), self.memory)
        self.system = self.port.kvm
        self._open: list[int] = []
        self._cached: tuple[str, LabVcpu] | None = None
        self._kept: dict[str, Any] = {}

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns what ``make`` creates, once for all records."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def cached(self, name: str, make: Callable[[], LabVcpu]) -> LabVcpu:
        """The vCPU of this name if it is the one created last, for records that continue with it."""
        if self._cached is None or self._cached[0] != name:
            self._cached = name, make()
        return self._cached[1]

    def ioctl(self, fd: int, request: int, arg: int = STRUCT) -> int:
        """Any ioctl; returns its result, or the negative errno."""
        return self.port.ioctl(fd, request, arg)

    def outcome(self, fd: int, request: int, arg: int = STRUCT) -> str:
        """The errno's name of an ioctl, or "OK"."""
        return name_of(self.port.ioctl(fd, request, arg))

    def vm(self) -> int:
        """KVM_CREATE_VM; closes earlier VMs."""
        self.close()
        return self._opened(self.ioctl(self.system, uapi.KVM_CREATE_VM, 0))

    def vcpu(self, vm: int | None = None, index: int = 0) -> LabVcpu:
        """KVM_CREATE_VCPU, in a VM of its own unless one is given."""
        fd = self._opened(self.ioctl(self.vm() if vm is None else vm, uapi.KVM_CREATE_VCPU, index))
        self.memory.end_of_page(None)
        self.memory.writable = True
        return LabVcpu(self, fd)

    def _opened(self, fd: int) -> int:
        assert fd >= 0, self.port.reason
        self._open.append(fd)
        return fd

    def bits(self, names: str) -> int:
        """The feature bits of names such as "SVE+SME" or "b10", and of those that every vCPU has."""
        word = 0
        for name in (*names.split("+"), self.always):
            if name in ("none", "-", "noinit", ""):
                continue
            if name[0] == "b":
                word |= 1 << int(name[1:])
            else:
                feature = self.kernel.features.get(features.by_label()[name])
                word |= 1 << (feature.bit if feature else uapi.KVM_ARM_VCPU_SME)
        return word

    def close(self) -> None:
        """Close the VMs and their vCPUs."""
        self._cached = None
        while self._open:
            self.port.close(self._open.pop())


def expand(text: str) -> bytes:
    """Bytes in the records' form: "0b*1 00*63", or plain hex."""
    out = b""
    for part in text.split():
        byte, _, count = part.partition("*")
        out += bytes.fromhex(byte) * int(count or 1)
    return out


def assert_records_agree(
    lab: Lab, records: list[dict[str, Any]], differences: Callable[[Lab, dict[str, Any]], Iterable[str]]
) -> None:
    """Play records, at least one, and report the first ones in which the model differs; closes the lab."""
    assert records
    wrong = []
    for record in records:
        wrong += [f"{str(record)[:200]}: {difference[:300]}" for difference in differences(lab, record)]
    lab.close()
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:10])
