# SPDX-License-Identifier: MIT
"""Steps on the model: its files in a table, as a process has descriptors, and a memory that is a table, too."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Hashable
from itertools import count

from kvmabi import uapi
from kvmabi.device import DeviceFile, Memory, SystemFile, VcpuFile
from kvmabi.device.file import PlainFile, Refused, Wait
from kvmabi.device.memory import take_own_fd
from kvmabi.model.refusal import Refusal
from kvmabi.steps.grammar import EDGE_BYTES, GUEST_BYTES, MAX_IDS
from kvmabi.steps.named import NamedDescriptors

ARGUMENT = 0x7F00_0000_0000
PAYLOAD = ARGUMENT + 0x1_0000
ARRAY = ARGUMENT + 0x2_0000
EDGE = ARGUMENT + 0x8_0000
GUEST = ARGUMENT + 0x20_0000
SYSTEM = 3
"""The descriptor of /dev/kvm: a process has three others when it opens it."""


class ModelMemory:
    """A caller's memory that needs no mapping: the places of StepMemory, and nothing else that can be read or written.

    ``address_space`` is whose memory it is, as for Memory. The bytes of a place are kept as they were poked or written;
    zeroes follow them to the place's end. Nearly every access is to a whole place, and copies nothing.
    """

    argument = ARGUMENT
    payload = PAYLOAD
    array = ARRAY
    guest = GUEST

    def __init__(self, address_space: Hashable = "steps") -> None:
        self.address_space = address_space
        self.pid = os.getpid()
        self._sizes = {ARGUMENT: 0x1_0000, PAYLOAD: 0x1_0000, ARRAY: 8 * (1 + MAX_IDS), EDGE - EDGE_BYTES: EDGE_BYTES}
        self._held = dict.fromkeys(self._sizes, b"")
        self._edge = EDGE - EDGE_BYTES
        self._guest = bytearray()
        self.poke: Callable[[int, bytes], None] = self._held.__setitem__
        """See StepMemory.poke."""

    def peek(self, addr: int, size: int) -> bytes:
        """See StepMemory.peek."""
        held = self._held[addr]
        return held[:size] if len(held) >= size else held.ljust(size, b"\0")

    def edge(self, size: int) -> int:
        """See StepMemory.edge."""
        del self._held[self._edge], self._sizes[self._edge]
        self._edge = EDGE - size
        self._held[self._edge], self._sizes[self._edge] = b"", size
        return self._edge

    def read(self, addr: int, size: int) -> bytes:
        """See Memory.read."""
        held = self._held.get(addr)
        if held is not None and len(held) >= size:
            return held[:size]
        start = self._place(addr)
        if start is None:
            return bytes(self._guest_memory()[addr - GUEST : addr - GUEST + size]) if self._in_guest(addr) else b""
        offset, whole = addr - start, self._sizes[start]
        return self._held[start].ljust(min(offset + size, whole), b"\0")[offset : offset + size]

    def write(self, addr: int, data: bytes) -> int:
        """See Memory.write."""
        size = len(data)
        held = self._held.get(addr)
        if held is not None and len(held) >= size:
            self._held[addr] = data if len(held) == size else data + held[size:]
            return size
        start = self._place(addr)
        if start is None and self._in_guest(addr):
            done = min(size, GUEST + GUEST_BYTES - addr)
            self._guest_memory()[addr - GUEST : addr - GUEST + done] = data[:done]
            return done
        if start is None:
            return 0
        held, offset = self._held[start], addr - start
        done = min(size, self._sizes[start] - offset)
        self._held[start] = held[:offset].ljust(offset, b"\0") + data[:done] + held[offset + done :]
        return done

    def take_fd(self, fd: int) -> int:
        """See Memory.take_fd: descriptors are this process's."""
        return take_own_fd(fd)

    def write_guest(self, offset: int, data: bytes) -> None:
        """See StepMemory.write_guest."""
        self._guest_memory()[offset : offset + len(data)] = data

    def read_guest(self, offset: int, size: int) -> bytes:
        """See StepMemory.read_guest."""
        return bytes(self._guest_memory()[offset : offset + size])

    def clear_guest(self) -> None:
        """See StepMemory.clear_guest."""
        self._guest = bytearray()

    def _guest_memory(self) -> bytearray:
        """The memory for slots, which exists from its first use on."""
        if not self._guest:
            self._guest = bytearray(GUEST_BYTES)
        return self._guest

    @staticmethod
    def _in_guest(addr: int) -> bool:
        return GUEST <= addr < GUEST + GUEST_BYTES

    def _place(self, addr: int) -> int | None:
        """Where the place begins that an address is in."""
        return next((start for start, size in self._sizes.items() if start <= addr < start + size), None)


class ModelPort:
    """The device files of the model behind a ``system`` file, under numbers; ``memory`` is the caller's."""

    kvm = SYSTEM
    memory: ModelMemory

    def __init__(self, system: SystemFile, memory: ModelMemory | None = None) -> None:
        self.memory = memory or ModelMemory()
        self._caller: Memory = self.memory
        self._files: dict[int, DeviceFile] = {SYSTEM: system}
        self._plain: dict[int, int] = {}
        self._named = NamedDescriptors()
        self._numbers = count(SYSTEM + 1)
        self._failed: Refused | Wait | None = None
        system.opened()

    @property
    def reason(self) -> str:
        """See Port.reason."""
        return str(self._failed.error()) if self._failed else ""

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        """See Port.ioctl."""
        file = self._files.get(fd)
        if file is None:
            return self._bad_fd(f"file descriptor {fd} is not open")
        answer = file.ioctl(request, argument, self._caller)
        if type(answer) is int:
            return answer
        if type(answer) is Refused:
            self._failed = answer
            return -answer.refusal.errno
        if type(answer) is PlainFile:
            fd = next(self._numbers)
            self._plain[fd] = answer.fd
            return fd
        if isinstance(answer, DeviceFile):
            return self._opened(answer, argument)
        assert isinstance(answer, Wait)
        self._failed = answer
        return -answer.errno

    def file(self, fd: int) -> DeviceFile:
        """The file behind a descriptor."""
        return self._files[fd]

    def immediate_exit(self, fd: int, value: bool) -> int:
        """See Port.immediate_exit."""
        file = self._files.get(fd)
        if not isinstance(file, VcpuFile):
            return self._bad_fd(f"file descriptor {fd} is not a vCPU")
        file.immediate_exit(value)
        return 0

    def enter(self, fd: int) -> int:
        """See Port.enter: what would wait for a signal has had one."""
        return self.ioctl(fd, uapi.KVM_RUN, 0)

    def descriptor(self, name: str) -> int:
        """See Port.descriptor."""
        return self._named.get(name)

    def keep_guest_memfd(self, fd: int) -> None:
        """See Port.keep_guest_memfd."""
        self._named.keep_guest_memfd(self._plain.pop(fd))

    def contents(self, fd: int, most: int) -> bytes:
        """See Port.contents."""
        return os.pread(self._plain[fd], most, 0)

    def close(self, fd: int) -> None:
        """See Port.close."""
        if fd in self._plain:
            os.close(self._plain.pop(fd))
        else:
            self._files.pop(fd).closed()

    def shut(self) -> None:
        """See Port.shut."""
        for fd in reversed(list(self._files)):
            self.close(fd)
        self._named.close()

    def cpu_features(self) -> str:
        """See Port.cpu_features: a profile does not have them."""
        return ""

    def _bad_fd(self, reason: str) -> int:
        self._failed = Refused(Refusal(errno.EBADF, reason), None, "")
        return -errno.EBADF

    def _opened(self, file: DeviceFile, argument: int) -> int:
        """Give a file that an ioctl opened a number, which is the result, or goes into the ioctl's struct."""
        fd = next(self._numbers)
        self._files[fd] = file
        file.opened()
        if file.fd_place is None:
            return fd
        self._caller.write(argument + file.fd_place, fd.to_bytes(4, "little"))
        return 0
