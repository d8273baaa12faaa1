# SPDX-License-Identifier: MIT
"""The details of an ioctl that traces and records show: its number, its argument, and what was copied.

They cost time and memory, so that an event has them only if its log is ``detailed`` (kvmabi.events.EventLog).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NamedTuple

from kvmabi import uapi

SIZE_SHIFT, SIZE_MASK = 16, 0x3FFF
DIRECTION_SHIFT = 30
WRITES, READS = 1, 2
"""Bits 30 and 31 of an ioctl's number: the kernel reads the struct (_IOW), the kernel writes it (_IOR)."""
FD_BYTES, FLAGS_BYTES = 4, 4
DESCRIPTOR_FIELDS: Final[dict[str, tuple[str, tuple[tuple[str, int], ...]]]] = {
    "KVM_IRQFD": ("struct kvm_irqfd", (("fd", 0), ("resamplefd", uapi.KVM_IRQFD_FLAG_RESAMPLE))),
    "KVM_IOEVENTFD": ("struct kvm_ioeventfd", (("fd", 0),)),
    "KVM_SET_USER_MEMORY_REGION2": (
        "struct kvm_userspace_memory_region2",
        (("guest_memfd", uapi.KVM_MEM_GUEST_MEMFD),),
    ),
}
"""The fields of an ioctl's struct that are descriptors, each with the flags without which the kernel ignores it."""


class Access(NamedTuple):
    """One copy from or to the caller's memory: of the ``wanted`` bytes at an address, ``data`` were copied."""

    address: int
    wanted: int
    data: bytes
    writes: bool

    @property
    def end(self) -> int:
        """The address behind the last byte that was copied."""
        return self.address + len(self.data)

    @property
    def faulted(self) -> bool:
        """Whether not all of it could be copied."""
        return len(self.data) < self.wanted


class Descriptor(NamedTuple):
    """A descriptor that an argument names: ``what`` is the same text for the same open file, "" for none."""

    number: int
    what: str


class Opened(NamedTuple):
    """The file that an ioctl opened: its kind ("vm", "vcpu", "device", "plain"), and its number.

    A plain file has ``what``, as a Descriptor has, and its first bytes.
    """

    kind: str
    number: int
    what: str = ""
    contents: bytes = b""


@dataclass
class Detail:
    """An ioctl as the caller made it, and its answer.

    ``kind`` is that of the file it was made on, ``device`` the device's number in its VM in the order of creation.
    ``before`` are the bytes of the argument's struct when the ioctl began, as many as can be read (none if its number
    encodes no size), ``after`` those when it ended, if the kernel writes them. ``run`` is the beginning of the vCPU's
    struct kvm_run after a KVM_RUN, ``offered`` what a KVM_SET_ONE_REG that failed before the kernel read it was to
    write. ``result`` is None for a failure.
    """

    request: int
    argument: int
    kind: str
    device: int | None = None
    before: bytes = b""
    after: bytes = b""
    accesses: list[Access] = field(default_factory=list)
    descriptors: list[Descriptor] = field(default_factory=list)
    run: bytes = b""
    offered: bytes = b""
    result: int | None = None
    opened: Opened | None = None

    @property
    def size_bytes(self) -> int:
        """The size of the argument's struct that the ioctl's number encodes."""
        return size_of_argument(self.request)

    @property
    def pointed(self) -> list[Access]:
        """The copies from and to other places than the struct, and the array that it ends with if it does."""
        start, end = self.argument, self.argument + self.size_bytes
        if ends_with_array(self.request):
            end += max((access.wanted for access in self.accesses if access.address == end), default=0)
        return [access for access in self.accesses if not start <= access.address < end]


def size_of_argument(request: int) -> int:
    """The size in bytes that an ioctl's number encodes."""
    return request >> SIZE_SHIFT & SIZE_MASK


def descriptor_places(name: str, struct: bytes) -> Iterator[int]:
    """Where descriptors that the kernel looks at stand in the struct of an ioctl, in bytes; none if it is cut.

    >>> list(descriptor_places("KVM_IOEVENTFD", bytes(64)))
    [20]
    """
    type_name, fields = DESCRIPTOR_FIELDS.get(name, ("", ()))
    if fields and len(struct) >= uapi.ffi.sizeof(type_name):
        start = uapi.ffi.offsetof(type_name, "flags")
        flags = int.from_bytes(struct[start : start + FLAGS_BYTES], "little")
        yield from (uapi.ffi.offsetof(type_name, field) for field, needed in fields if flags & needed == needed)


@cache
def ends_with_array(request: int) -> bool:
    """Whether the struct of an ioctl ends with an array whose length is in the struct.

    >>> from kvmabi import uapi
    >>> ends_with_array(uapi.KVM_GET_REG_LIST), ends_with_array(uapi.KVM_GET_ONE_REG)
    (True, False)
    """
    name = uapi.IOCTL_ARGUMENTS.get(uapi.IOCTL_NAMES.get(request, ""), "")
    fields = uapi.ffi.typeof(name).fields if name.startswith("struct ") else None
    last = fields[-1][1].type if fields else None
    return last is not None and last.kind == "array" and not last.length
