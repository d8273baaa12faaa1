# SPDX-License-Identifier: MIT
"""KVM_ENABLE_CAP of a VM: what each capability that can be enabled requires, and what it changes.

Source: api.rst, 7 and 8, and the answers of Linux 6.1 to 7.3. A vCPU has no capability that can be enabled.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from kvmabi import uapi
from kvmabi.model.refusal import Refusal
from kvmabi.model.slots import PAGE_BYTES, Slots
from kvmabi.model.vm import Vm

NOT_OFFERED = Refusal(errno.EINVAL, "the kernel cannot enable this capability")
BAD_ARGUMENTS = Refusal(errno.EINVAL, "the capability does not have these flags or arguments")
AFTER_VCPUS = Refusal(errno.EINVAL, "this capability can be enabled only before the first vCPU is created")
AFTER_SLOTS = Refusal(errno.EINVAL, "this capability can be enabled only before the first memory slot is created")
RING_EXISTS = Refusal(errno.EINVAL, "the VM has dirty rings already")
NO_RING = Refusal(errno.EINVAL, "a bitmap beside the dirty rings needs the rings", "enable KVM_CAP_DIRTY_LOG_RING")
BAD_RING = Refusal(errno.EINVAL, "the size of a dirty ring is a power of two, at least a page")
RING_TOO_LARGE = Refusal(errno.E2BIG, "the dirty ring is larger than KVM_CHECK_EXTENSION allows")
WORD_MASK = (1 << 32) - 1
MANUAL, AT_FIRST = int(uapi.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE), int(uapi.KVM_DIRTY_LOG_INITIALLY_SET)


class Wish(NamedTuple):
    """What KVM_ENABLE_CAP asks for, and of which VM; ``offered`` is what KVM_CHECK_EXTENSION returns."""

    vm: Vm
    slots: Slots
    capability: int
    flags: int
    argument: int
    offered: int


def _plain(wish: Wish) -> None:
    """Nothing but what the guest would see."""
    if wish.flags:
        raise BAD_ARGUMENTS.error()


def _before_vcpus(wish: Wish) -> None:
    _plain(wish)
    if wish.vm.vcpus:
        raise AFTER_VCPUS.error()


def _manual_dirty_log(wish: Wish) -> None:
    allowed = MANUAL | AT_FIRST if wish.argument & MANUAL else MANUAL
    if wish.flags or wish.argument & ~allowed:
        raise BAD_ARGUMENTS.error()
    wish.slots.manual_clear = bool(wish.argument & MANUAL)
    wish.slots.all_dirty_at_first = bool(wish.argument & AT_FIRST)


def _halt_poll(wish: Wish) -> None:
    if wish.flags or wish.argument > WORD_MASK:
        raise BAD_ARGUMENTS.error()


def _dirty_ring(wish: Wish) -> None:
    size = wish.argument & WORD_MASK
    if size < PAGE_BYTES or size & (size - 1):
        raise BAD_RING.error()
    if size > wish.offered:
        raise RING_TOO_LARGE.error()
    if wish.vm.dirty_ring_bytes:
        raise RING_EXISTS.error()
    if wish.vm.vcpus:
        raise AFTER_VCPUS.error()
    wish.vm.dirty_ring_bytes = size
    wish.slots.ring_only = True


def _bitmap_with_ring(wish: Wish) -> None:
    if not wish.vm.dirty_ring_bytes or wish.flags:
        raise (BAD_ARGUMENTS if wish.flags else NO_RING).error()
    if len(wish.slots):
        raise AFTER_SLOTS.error()
    wish.slots.ring_only = False


def _split_chunks(wish: Wish) -> None:
    """KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE: 0, or one of the sizes of KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES."""
    blocks = wish.vm.system.check_extension(uapi.KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES, on_vm=True)
    size = wish.argument
    if wish.flags or (size and (size & (size - 1) or not size & blocks)):
        raise BAD_ARGUMENTS.error()
    if len(wish.slots):
        raise AFTER_SLOTS.error()


HOW: dict[int, Callable[[Wish], None]] = {
    uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: _manual_dirty_log,
    uapi.KVM_CAP_ARM_NISV_TO_USER: _plain,
    uapi.KVM_CAP_HALT_POLL: _halt_poll,
    uapi.KVM_CAP_ARM_MTE: _before_vcpus,
    uapi.KVM_CAP_ARM_SYSTEM_SUSPEND: _plain,
    uapi.KVM_CAP_DIRTY_LOG_RING_ACQ_REL: _dirty_ring,
    uapi.KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP: _bitmap_with_ring,
    uapi.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE: _split_chunks,
    uapi.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS: _before_vcpus,
    uapi.KVM_CAP_ARM_SEA_TO_USER: _plain,
}
"""The capabilities that can be enabled."""
OFFERED_BY = {uapi.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE: uapi.KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES}
"""The capability that says that another one can be enabled, where that is 0 until it is."""


def enable(vm: Vm, slots: Slots, capability: int, flags: int, argument: int) -> None:
    """KVM_ENABLE_CAP on a VM. Errors: EINVAL, E2BIG."""
    how = HOW.get(capability)
    if how is None:
        raise NOT_OFFERED.error()
    offered = vm.system.check_extension(OFFERED_BY.get(capability, capability), on_vm=True)
    if not offered:
        raise NOT_OFFERED.error()
    how(Wish(vm, slots, capability, flags, argument, offered))
    vm.enabled.add(capability)
