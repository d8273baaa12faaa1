# SPDX-License-Identifier: MIT
"""The names of numbers in the structs of ioctls: constants of the headers, found by how their names begin.

>>> Enumeration("KVM_MP_STATE_").text(5)
'STOPPED'
>>> Flags("KVM_MEM_").text(3)
'LOG_DIRTY_PAGES|READONLY'
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, Protocol

from kvmabi import uapi

LARGEST_DECIMAL = 1023
KVM = "KVM_"


def number(value: int) -> str:
    """A number: in hex if it is large."""
    return str(value) if -LARGEST_DECIMAL <= value <= LARGEST_DECIMAL else f"{value:#x}"


class Meaning(Protocol):
    """What the numbers of a field mean."""

    def text(self, value: int) -> str:
        """A number by its name."""


@dataclass(frozen=True)
class Enumeration:
    """Each number has a name, which is shown without its ``prefix``; names that contain one of ``without`` are not."""

    prefix: str
    without: tuple[str, ...] = ()

    @cached_property
    def names(self) -> dict[int, str]:
        """The names by number."""
        return dict(reversed([(value, name) for name, value in _constants(self.prefix, self.without)]))

    def text(self, value: int) -> str:
        """See Meaning."""
        return self.names.get(value, number(value))


@dataclass(frozen=True)
class Flags:
    """Each bit has a name; bits without one are shown as a number."""

    prefix: str
    without: tuple[str, ...] = ()

    def text(self, value: int) -> str:
        """See Meaning."""
        found = []
        for name, flag in _constants(self.prefix, self.without):
            if flag and flag & value == flag:
                found.append(name)
                value &= ~flag
        return "|".join([*found, *([f"{value:#x}"] if value or not found else [])]) if found or value else "0"


class Capability:
    """Numbers of capabilities."""

    def text(self, value: int) -> str:
        """See Meaning."""
        name = uapi.CAPABILITY_NAMES.get(value)
        return name.removeprefix(KVM) if name else number(value)


class Hex:
    """Addresses and masks."""

    def text(self, value: int) -> str:
        """See Meaning."""
        return f"{value:#x}"


FIELDS: Final[dict[str, Meaning]] = {
    "kvm_create_device.type": Enumeration("KVM_DEV_TYPE_"),
    "kvm_create_device.flags": Flags("KVM_CREATE_DEVICE_"),
    "kvm_enable_cap.cap": Capability(),
    "kvm_mp_state.mp_state": Enumeration("KVM_MP_STATE_"),
    "kvm_userspace_memory_region.flags": Flags("KVM_MEM_"),
    "kvm_userspace_memory_region2.flags": Flags("KVM_MEM_"),
    "kvm_create_guest_memfd.flags": Flags("GUEST_MEMFD_FLAG_"),
    "kvm_memory_attributes.attributes": Flags("KVM_MEMORY_ATTRIBUTE_"),
    "kvm_irqfd.flags": Flags("KVM_IRQFD_FLAG_"),
    "kvm_ioeventfd.flags": Flags("KVM_IOEVENTFD_FLAG_"),
    "kvm_guest_debug.control": Flags("KVM_GUESTDBG_"),
    "kvm_irq_routing_entry.type": Enumeration("KVM_IRQ_ROUTING_"),
    "kvm_msi.flags": Flags("KVM_MSI_"),
    "exit system_event.type": Enumeration("KVM_SYSTEM_EVENT_", ("FLAG",)),
    "exit memory_fault.flags": Flags("KVM_MEMORY_EXIT_FLAG_"),
}
"""The fields whose numbers have names, also of the members of struct kvm_run's union (``exit``).

Addresses and masks are found by the field's name."""
HEX_FIELDS: Final = frozenset({"addr", "guest_phys_addr", "userspace_addr", "phys_addr", "dirty_bitmap", "address_lo"})
EXITS: Final = {
    uapi.KVM_EXIT_MMIO: "mmio",
    uapi.KVM_EXIT_HYPERCALL: "hypercall",
    uapi.KVM_EXIT_SYSTEM_EVENT: "system_event",
    uapi.KVM_EXIT_FAIL_ENTRY: "fail_entry",
    uapi.KVM_EXIT_INTERNAL_ERROR: "internal",
    uapi.KVM_EXIT_ARM_NISV: "arm_nisv",
    uapi.KVM_EXIT_MEMORY_FAULT: "memory_fault",
}
"""The member of struct kvm_run's union that belongs to an exit reason."""


def meaning(struct: str, field: str) -> Meaning | None:
    """What the numbers of a field mean; None: just numbers."""
    found = FIELDS.get(f"{struct.removeprefix('struct ')}.{field}")
    return found or (Hex() if field in HEX_FIELDS else None)


@cache
def _constants(prefix: str, without: tuple[str, ...]) -> list[tuple[str, int]]:
    return [
        (name.removeprefix(prefix), value)
        for name, value in vars(uapi).items()
        if name.startswith(prefix) and type(value) is int and not any(part in name for part in without)
    ]
