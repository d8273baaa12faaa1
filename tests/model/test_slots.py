# SPDX-License-Identifier: MIT
"""Memory slots: found by address against a walk over all of them, and unchanged by what fails."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi.errors import KvmError
from kvmabi.model.slots import LOG_DIRTY, PAGE_BYTES, READONLY, GuestMemfd, Limits, Region, Slots

LIMITS = Limits(7, 1 << 48, 1 << 40)
MOVES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40), st.integers(0, 6)), max_size=40)


def put(slots: Slots, number: int, page: int, pages: int, flags: int = 0) -> str:
    """Set or remove a slot; the errno's name, or OK."""
    region = Region(number, flags, page * PAGE_BYTES, pages * PAGE_BYTES, 0)
    try:
        slots.check(region, LIMITS)
        slots.set(region, LIMITS, None) if pages else slots.remove(number)
    except KvmError as error:
        return error.name
    return "OK"


@given(MOVES)
def test_overlaps_are_found(moves: list[tuple[int, int, int]]) -> None:
    """As by a walk over all slots."""
    slots, there = Slots(), {}
    for number, page, pages in moves:
        answer = put(slots, number, page, pages)
        others = [span for other, span in there.items() if other != number]
        clash = any(page < end and start < page + pages for start, end in others)
        if not pages:
            assert answer == ("OK" if there.pop(number, None) else "EINVAL")
        elif number in there and there[number][1] - there[number][0] != pages:
            assert answer == "EINVAL"
        elif clash and (number not in there or there[number][0] != page):
            assert answer == "EEXIST"
        else:
            assert answer == "OK"
            there[number] = page, page + pages
        for place in range(50):
            held = any(start <= place < end for start, end in there.values())
            assert slots.holds(place * PAGE_BYTES) == held
    assert len(slots) == len(there)


def test_logging_can_change_and_readonly_cannot() -> None:
    """The dirty pages live as long as the slot is logged."""
    slots = Slots()
    assert put(slots, 0, 0, 4, LOG_DIRTY) == "OK"
    log = slots.logged(0)
    assert put(slots, 0, 8, 4, LOG_DIRTY) == "OK"
    assert slots.logged(0) is log
    assert put(slots, 0, 8, 4, READONLY) == "EINVAL"
    assert put(slots, 0, 8, 4) == "OK"
    with pytest.raises(KvmError) as error:
        slots.logged(0)
    assert error.value.errno == errno.ENOENT


def test_a_slot_beyond_the_guest_gives_its_guest_memfd_back() -> None:
    """EFAULT comes after the file was looked at, and leaves nothing behind."""
    slots, memfd = Slots(), GuestMemfd(1 << 16, can_be_mapped=True)
    far = Region(0, 4, 1 << 40, PAGE_BYTES, 0)
    with pytest.raises(KvmError) as error:
        slots.set(far, LIMITS, memfd)
    assert (error.value.errno, memfd.used) == (errno.EFAULT, {})
    slots.set(far._replace(guest=0), LIMITS, memfd)
    assert memfd.used == {0: (0, PAGE_BYTES)}
    slots.remove(0)
    assert memfd.used == {}
