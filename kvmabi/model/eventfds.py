# SPDX-License-Identifier: MIT
"""Which eventfds interrupt the guest (irqfds) and which its writes signal (ioeventfds), by the number of each eventfd.

A guest is a script, if there is one: its writes signal ioeventfds. Nobody waits for irqfds, so what is kept of them is
what a later KVM_IRQFD depends on.
Source: api.rst, 4.59 KVM_IOEVENTFD and 4.75 KVM_IRQFD, and the answers of Linux 6.1 to 7.3.
"""

from __future__ import annotations

import errno
from enum import Enum

from kvmabi import uapi
from kvmabi.model.refusal import Refusal

TAKEN = Refusal(errno.EBUSY, "the eventfd already has an irqfd", "deassign that first")
BAD_LENGTH = Refusal(errno.EINVAL, "an ioeventfd matches accesses of 1, 2, 4 or 8 bytes, or of any length (0)")
WRAPS = Refusal(errno.EINVAL, "the address wraps around the end of the address space")
BAD_FLAGS = Refusal(errno.EINVAL, "unknown flags")
NO_MATCH_WITHOUT_LENGTH = Refusal(errno.EINVAL, "a value to match needs a length")
COLLIDES = Refusal(errno.EEXIST, "another ioeventfd matches the same accesses")
NOT_ASSIGNED = Refusal(errno.ENOENT, "there is no such ioeventfd to deassign")
LENGTHS = frozenset({0, 1, 2, 4, 8})
DATAMATCH = int(uapi.KVM_IOEVENTFD_FLAG_DATAMATCH)
VALID_FLAGS = int(uapi.KVM_IOEVENTFD_VALID_FLAG_MASK)


class IrqFds:
    """The irqfds of all VMs of a host; ``one_vm``: an eventfd can have an irqfd in one VM only."""

    def __init__(self, *, one_vm: bool) -> None:
        self.one_vm = one_vm
        self._gsis: dict[int, dict[int, int]] = {}

    def assign(self, vm: int, eventfd: int, gsi: int) -> None:
        """Assign an eventfd to an interrupt of a VM. Errors: EBUSY."""
        by_vm = self._gsis.setdefault(eventfd, {})
        if vm in by_vm or (by_vm and self.one_vm):
            raise TAKEN.error()
        by_vm[vm] = gsi

    def deassign(self, vm: int, eventfd: int, gsi: int) -> bool:
        """Take an irqfd away, if there is one; returns whether the eventfd has no other."""
        by_vm = self._gsis.get(eventfd, {})
        if by_vm.get(vm) == gsi:
            del by_vm[vm]
        if not by_vm:
            self._gsis.pop(eventfd, None)
        return not by_vm

    def gone(self, eventfd: int) -> None:
        """The eventfd was closed, which took its irqfds away; the number is another's now."""
        self._gsis.pop(eventfd, None)

    def close(self, vm: int) -> None:
        """The VM is gone."""
        for eventfd in [number for number, by_vm in self._gsis.items() if vm in by_vm]:
            self.deassign(vm, eventfd, self._gsis[eventfd][vm])


class Bus(Enum):
    """Where an ioeventfd listens; accesses on one bus do not meet the others'."""

    MMIO = "mmio"
    PIO = "pio"
    CCW = "ccw"

    @classmethod
    def of(cls, flags: int) -> Bus:
        """The bus that flags of KVM_IOEVENTFD name."""
        if flags & uapi.KVM_IOEVENTFD_FLAG_PIO:
            return cls.PIO
        return cls.CCW if flags & uapi.KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY else cls.MMIO


class Access:
    """The writes that an ioeventfd matches: an address, a length in bytes (0: any), a value (None: any)."""

    def __init__(self, addr: int, size_bytes: int, flags: int, datamatch: int) -> None:
        self.place = Bus.of(flags), addr
        self.size_bytes = size_bytes
        self.value = datamatch if flags & DATAMATCH else None
        self._flags = flags

    def check(self) -> None:
        """EINVAL for what cannot be assigned."""
        if self.size_bytes not in LENGTHS:
            raise BAD_LENGTH.error()
        if self.place[1] + self.size_bytes >= 1 << 64:
            raise WRAPS.error()
        if self._flags & ~VALID_FLAGS:
            raise BAD_FLAGS.error()
        if not self.size_bytes and self.value is not None:
            raise NO_MATCH_WITHOUT_LENGTH.error()


class IoEventFds:
    """The ioeventfds of a VM: by place, by length and by value, the number of the eventfd."""

    def __init__(self) -> None:
        self._places: dict[tuple[Bus, int], dict[int, dict[int | None, int]]] = {}

    def assign(self, eventfd: int, access: Access) -> None:
        """Signal an eventfd on an access. Errors: EEXIST where an access could match two."""
        by_size = self._places.setdefault(access.place, {})
        by_value = by_size.get(access.size_bytes, {})
        any_size = not access.size_bytes
        same_size = by_value and (access.value is None or None in by_value or access.value in by_value)
        if same_size or (by_size if any_size else 0 in by_size):
            raise COLLIDES.error()
        by_size.setdefault(access.size_bytes, {})[access.value] = eventfd

    def find(self, addr: int, size_bytes: int, value: int) -> int | None:
        """The number of the eventfd that a guest's write of ``value`` to an address signals."""
        by_size = self._places.get((Bus.MMIO, addr), {})
        for by_value in filter(None, (by_size.get(size_bytes), by_size.get(0))):
            found = by_value.get(value, by_value.get(None))
            if found is not None:
                return found
        return None

    def deassign(self, eventfd: int, access: Access) -> None:
        """Take an ioeventfd away. Errors: ENOENT."""
        by_size = self._places.get(access.place, {})
        by_value = by_size.get(access.size_bytes, {})
        if by_value.get(access.value) != eventfd:
            raise NOT_ASSIGNED.error()
        del by_value[access.value]
        if not by_value:
            del by_size[access.size_bytes]
        if not by_size:
            del self._places[access.place]
