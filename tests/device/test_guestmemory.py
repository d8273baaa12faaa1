# SPDX-License-Identifier: MIT
"""A guest's memory through slots: what crosses them, what cannot be read or written, what becomes dirty."""

from __future__ import annotations

from kvmabi.device.guestmemory import MappedSlots
from kvmabi.model.slots import LOG_DIRTY, PAGE_BYTES, READONLY, Limits, Region, Slots
from kvmabi.steps.modelport import GUEST, ModelMemory

WIDE = Limits(LOG_DIRTY | READONLY, 1 << 48, 1 << 40)
BASE = 0x8000_0000


def mapped(*regions: Region) -> tuple[Slots, MappedSlots, ModelMemory]:
    """Slots of the memory of steps."""
    slots, memory = Slots(), ModelMemory()
    for region in regions:
        slots.set(region, WIDE, None)
    return slots, MappedSlots(slots, memory), memory


def test_an_access_crosses_slots_up_to_a_gap() -> None:
    """Two slots next to each other hold one write; a read ends where no slot is."""
    first, second = Region(0, 0, BASE, PAGE_BYTES, GUEST + 0x5000), Region(1, 0, BASE + PAGE_BYTES, PAGE_BYTES, GUEST)
    _slots, guest, memory = mapped(first, second)
    assert guest.write(BASE + PAGE_BYTES - 3, b"abcdef") == 6
    assert memory.read_guest(0x5000 + PAGE_BYTES - 3, 3) == b"abc"
    assert memory.read_guest(0, 3) == b"def"
    assert guest.read(BASE + PAGE_BYTES - 3, 6) == b"abcdef"
    assert guest.read(BASE + 2 * PAGE_BYTES - 2, 8) == bytes(2)
    assert guest.visible(BASE + 2 * PAGE_BYTES - 1)
    assert not guest.visible(BASE + 2 * PAGE_BYTES)
    assert not guest.visible(BASE - 1)


def test_a_read_only_slot_is_not_written() -> None:
    """It can be read."""
    _slots, guest, _memory = mapped(Region(0, READONLY, BASE, PAGE_BYTES, GUEST))
    assert guest.write(BASE, b"x") == 0
    assert guest.read(BASE, 1) == b"\0"


def test_memory_that_the_vmm_lacks_ends_an_access() -> None:
    """The slot's addresses are not mapped in the VMM."""
    slots, guest, _memory = mapped(Region(0, LOG_DIRTY, BASE, PAGE_BYTES, 0x1000))
    assert guest.read(BASE, 1) == b""
    assert guest.write(BASE, b"x") == 0
    assert not any(part.strip(b"\0") for _, part in slots.logged(0).parts())


def test_what_is_written_is_dirty() -> None:
    """The pages of a write that crosses a page's end, and no others."""
    slots, guest, _memory = mapped(Region(0, LOG_DIRTY, BASE, 70 * PAGE_BYTES, GUEST))
    guest.write(BASE + 65 * PAGE_BYTES - 1, b"xy")
    ((_, bits),) = slots.logged(0).parts()
    assert int.from_bytes(bits, "little") == 0b11 << 64
