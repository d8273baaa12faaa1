# SPDX-License-Identifier: MIT
"""The memory slots of a VM, found by number and by address, and their dirty pages.

Source: api.rst, 4.35 KVM_SET_USER_MEMORY_REGION, 4.8 KVM_GET_DIRTY_LOG, 4.117 KVM_CLEAR_DIRTY_LOG and 4.140
KVM_SET_USER_MEMORY_REGION2, and the answers of Linux 6.1 to 7.3.
"""

from __future__ import annotations

import errno
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import NamedTuple

from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.model.dirtypages import WORD_PAGES, DirtyPages
from kvmabi.model.refusal import Refusal

PAGE_BYTES = 4096
MAX_SLOTS = 32767
MAX_PAGES = (1 << 31) - 1
LOG_DIRTY, READONLY, GUEST_MEMFD = (
    int(uapi.KVM_MEM_LOG_DIRTY_PAGES),
    int(uapi.KVM_MEM_READONLY),
    int(uapi.KVM_MEM_GUEST_MEMFD),
)
TAG_SHIFT = 56

BAD_FLAGS = Refusal(errno.EINVAL, "a memory slot has unknown flags, or flags that exclude each other")
UNALIGNED = Refusal(errno.EINVAL, "size and addresses of a memory slot are multiples of 4 KiB")
BAD_USER = Refusal(errno.EINVAL, "the memory is not in the VMM's address space")
BAD_SLOT = Refusal(errno.EINVAL, f"memory slots have the numbers 0 to {MAX_SLOTS - 1}")
WRAPS = Refusal(errno.EINVAL, "the memory wraps around the end of the address space")
TOO_LARGE = Refusal(errno.EINVAL, "a memory slot has fewer than 2^31 pages")
ABSENT = Refusal(errno.EINVAL, "a memory slot that does not exist cannot be removed")
IMMUTABLE = Refusal(errno.EINVAL, "a memory slot can be moved and logged, but not resized or given other memory")
MEMFD_IMMUTABLE = Refusal(errno.EINVAL, "a memory slot of a guest_memfd can only be removed")
BEYOND = Refusal(errno.EFAULT, "the memory lies beyond the VM's guest-physical addresses")
NOT_LOGGED = Refusal(errno.ENOENT, "the memory slot does not exist, or does not log dirty pages")
RING_ONLY = Refusal(errno.ENXIO, "the VM logs dirty pages in rings only")
UNALIGNED_CLEAR = Refusal(errno.EINVAL, f"the first page is a multiple of {WORD_PAGES}")
BAD_CLEAR = Refusal(
    errno.EINVAL, f"the pages to clear lie in the slot, and end with it or at a multiple of {WORD_PAGES}"
)
NOT_MEMFD = Refusal(errno.EINVAL, "the file is not a guest_memfd of this VM that can be mapped")
MEMFD_TOO_SMALL = Refusal(errno.EINVAL, "the guest_memfd is too small")
MEMFD_IN_USE = Refusal(errno.EEXIST, "another memory slot has this part of the guest_memfd")


class GuestMemfd:
    """A guest_memfd of a VM; ``used`` are the parts that slots have, as offset and end in bytes by slot."""

    def __init__(self, size_bytes: int, *, can_be_mapped: bool) -> None:
        self.size_bytes = size_bytes
        self.can_be_mapped = can_be_mapped
        self.used: dict[int, tuple[int, int]] = {}

    def bind(self, slot: int, offset: int, size_bytes: int) -> None:
        """Give a part to a slot. Errors: EINVAL, EEXIST."""
        if offset + size_bytes > self.size_bytes:
            raise MEMFD_TOO_SMALL.error()
        end = offset + size_bytes
        if any(start < end and offset < other_end for start, other_end in self.used.values()):
            raise MEMFD_IN_USE.error()
        if not self.can_be_mapped:
            raise NOT_MEMFD.error()
        self.used[slot] = offset, end


class Slot(NamedTuple):
    """A memory slot: guest-physical address and size in bytes, address in the VMM, flags, dirty pages if logged."""

    guest: int
    size: int
    user: int
    flags: int
    dirty: DirtyPages | None = None
    memfd: GuestMemfd | None = None

    @property
    def end(self) -> int:
        """The first guest-physical address behind it."""
        return self.guest + self.size

    def written(self, address: int, size_bytes: int) -> None:
        """``size_bytes`` were written at a guest-physical address in the slot: their pages become dirty if it logs."""
        if self.dirty is not None and size_bytes:
            offset = address - self.guest
            for page in range(offset // PAGE_BYTES, (offset + size_bytes - 1) // PAGE_BYTES + 1):
                self.dirty.mark(page)


class Part(NamedTuple):
    """A part of an access: the slot that it lies in, its guest-physical address, its size, its address in the VMM."""

    slot: Slot
    address: int
    size_bytes: int
    user: int


class Region(NamedTuple):
    """What KVM_SET_USER_MEMORY_REGION and its successor ask for. ``offset`` is that in the guest_memfd."""

    slot: int
    flags: int
    guest: int
    size: int
    user: int
    offset: int = 0


class Limits(NamedTuple):
    """The flags that a call can have, and the first addresses beyond the VMM's and the guest's."""

    flags: int
    user: int
    guest: int


class Slots:
    """The slots of a VM."""

    def __init__(self) -> None:
        self._by_number: dict[int, Slot] = {}
        self._starts: list[tuple[int, int]] = []
        self.all_dirty_at_first = False
        self.manual_clear = False
        self.ring_only = False
        """What KVM_ENABLE_CAP of dirty logging chose."""

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Slot | None:
        """The slot of a number."""
        return self._by_number.get(number)

    def holds(self, address: int) -> bool:
        """Whether a guest-physical address is in a slot."""
        return self.find(address) is not None

    def find(self, address: int) -> Slot | None:
        """The slot that a guest-physical address is in."""
        place = bisect_right(self._starts, (address, MAX_SLOTS))
        if not place:
            return None
        slot = self._by_number[self._starts[place - 1][1]]
        return slot if address < slot.end else None

    def parts(self, address: int, size_bytes: int) -> Iterator[Part]:
        """The parts of an access, one for each slot, up to the first address that is in none."""
        end = address + size_bytes
        while address < end:
            slot = self.find(address)
            if slot is None:
                return
            size = min(end, slot.end) - address
            yield Part(slot, address, size, slot.user + address - slot.guest)
            address += size

    def check(self, region: Region, limits: Limits) -> None:
        """EINVAL for what no memory slot can be."""
        flags, size, user = region.flags, region.size, region.user
        alone = flags & GUEST_MEMFD and flags != GUEST_MEMFD
        if flags & ~limits.flags or alone:
            raise BAD_FLAGS.error()
        if (region.guest | size | user | (region.offset if flags & GUEST_MEMFD else 0)) % PAGE_BYTES:
            raise UNALIGNED.error()
        if user >> TAG_SHIFT or user + size > limits.user:
            raise BAD_USER.error()
        if flags & GUEST_MEMFD and region.offset + size >= 1 << 64:
            raise WRAPS.error()
        if region.slot >= MAX_SLOTS:
            raise BAD_SLOT.error()
        if region.guest + size >= 1 << 64:
            raise WRAPS.error()
        if size // PAGE_BYTES > MAX_PAGES:
            raise TOO_LARGE.error()

    def remove(self, number: int) -> None:
        """Remove a slot. Errors: EINVAL."""
        old = self._by_number.pop(number, None)
        if old is None:
            raise ABSENT.error()
        if old.memfd is not None:
            del old.memfd.used[number]
        self._starts.pop(bisect_left(self._starts, (old.guest, number)))

    def set(self, region: Region, limits: Limits, memfd: GuestMemfd | KvmError | None) -> None:
        """Create, move or log a slot that ``check`` found sound. ``memfd``: what the descriptor stands for.

        Errors: EINVAL, EEXIST, EFAULT; and those of the descriptor, where the kernel looks at it.
        """
        number, flags, guest, size, user, offset = region
        old = self._by_number.get(number)
        if old is not None:
            if (old.flags | flags) & GUEST_MEMFD:
                raise MEMFD_IMMUTABLE.error()
            if (old.user, old.size) != (user, size) or (old.flags ^ flags) & READONLY:
                raise IMMUTABLE.error()
            if (old.guest, old.flags) == (guest, flags):
                return
        moves = old is None or old.guest != guest
        if moves and self._overlaps(guest, guest + size, number):
            raise Refusal(errno.EEXIST, f"memory slot {number} would overlap another").error()
        bound = None
        if flags & GUEST_MEMFD:
            if isinstance(memfd, KvmError):
                raise memfd
            if memfd is None:
                raise NOT_MEMFD.error()
            memfd.bind(number, offset, size)
            bound = memfd
        if moves and guest + size > limits.guest:
            if bound is not None:
                del bound.used[number]
            raise BEYOND.error()
        if old is not None:
            self.remove(number)
        self._by_number[number] = Slot(guest, size, user, flags, self._dirty(old, flags, size), bound)
        insort(self._starts, (guest, number))

    def logged(self, number: int) -> DirtyPages:
        """The dirty pages of a slot. Errors: EINVAL, ENOENT."""
        if number >= MAX_SLOTS:
            raise BAD_SLOT.error()
        slot = self._by_number.get(number)
        if slot is None or slot.dirty is None:
            raise NOT_LOGGED.error()
        return slot.dirty

    def check_log(self) -> None:
        """ENXIO if dirty pages are in rings only."""
        if self.ring_only:
            raise RING_ONLY.error()

    def _dirty(self, old: Slot | None, flags: int, size: int) -> DirtyPages | None:
        if not flags & LOG_DIRTY:
            return None
        if old is not None and old.dirty is not None:
            return old.dirty
        return DirtyPages(size // PAGE_BYTES, all_dirty=self.all_dirty_at_first)

    def _overlaps(self, start: int, end: int, but: int) -> bool:
        """Whether a slot, not that of the number ``but``, has an address from ``start`` to below ``end``."""
        place = bisect_right(self._starts, (end - 1, MAX_SLOTS))
        seen = 0
        while place and seen < 2:  # slots do not overlap: only the last one that is not excepted matters
            place -= 1
            guest, number = self._starts[place]
            if number != but:
                return guest + self._by_number[number].size > start
            seen += 1
        return False


def check_clear(dirty: DirtyPages, first_page: int, pages: int) -> None:
    """EINVAL for pages that KVM_CLEAR_DIRTY_LOG cannot clear."""
    left = dirty.pages - first_page
    if left < 0 or pages > left or (pages < left and pages % WORD_PAGES):
        raise BAD_CLEAR.error()
