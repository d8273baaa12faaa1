# SPDX-License-Identifier: MIT
"""The statistics of a VM and of a vCPU: descriptors as Linux 6.1 to 7.3 have them, and values, all of them 0.

They count what a guest makes the host do, and no guest runs. The file is laid out as api.rst, 4.133 KVM_GET_STATS_FD,
has it: a header, the id, the descriptors, the values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from kvmabi import uapi

NAME_BYTES = 48
VALUE_BYTES = 8
HEADER = struct.Struct("=6I")
DESCRIPTOR = struct.Struct(f"=IhHII{NAME_BYTES}s")
NANOSECONDS = -9
BUCKETS = 32
"""Buckets of a histogram; each is twice as wide as the one before it."""


class Statistic(NamedTuple):
    """A statistic: its name, its flags (type, unit and base), the unit's exponent, and how many values it has."""

    name: str
    flags: int = uapi.KVM_STATS_TYPE_CUMULATIVE | uapi.KVM_STATS_UNIT_NONE | uapi.KVM_STATS_BASE_POW10
    exponent: int = 0
    values: int = 1


def _time(name: str) -> Statistic:
    return Statistic(name, uapi.KVM_STATS_TYPE_CUMULATIVE | uapi.KVM_STATS_UNIT_SECONDS, NANOSECONDS)


def _histogram(name: str) -> Statistic:
    return Statistic(name, uapi.KVM_STATS_TYPE_LOG_HIST | uapi.KVM_STATS_UNIT_SECONDS, NANOSECONDS, BUCKETS)


OF_A_VM = (Statistic("remote_tlb_flush"), Statistic("remote_tlb_flush_requests"))
OF_A_VCPU = (
    *map(Statistic, ("halt_successful_poll", "halt_attempted_poll", "halt_poll_invalid", "halt_wakeup")),
    *map(_time, ("halt_poll_success_ns", "halt_poll_fail_ns", "halt_wait_ns")),
    *map(_histogram, ("halt_poll_success_hist", "halt_poll_fail_hist", "halt_wait_hist")),
    Statistic("blocking", uapi.KVM_STATS_TYPE_INSTANT | uapi.KVM_STATS_UNIT_BOOLEAN),
    *map(Statistic, ("hvc_exit_stat", "wfe_exit_stat", "wfi_exit_stat", "mmio_exit_user", "mmio_exit_kernel")),
    *map(Statistic, ("signal_exits", "exits")),
)


def contents(statistics: Iterable[Statistic], id: str) -> bytes:
    """Returns the file of some statistics; ``id`` names what they are of ("kvm-42/vcpu-0")."""
    rows = tuple(statistics)
    id_start = HEADER.size
    first = id_start + NAME_BYTES
    data = first + len(rows) * DESCRIPTOR.size
    offset, descriptors = 0, []
    for row in rows:
        descriptors.append(DESCRIPTOR.pack(row.flags, row.exponent, row.values, offset, 0, row.name.encode()))
        offset += row.values * VALUE_BYTES
    header = HEADER.pack(0, NAME_BYTES, len(rows), id_start, first, data)
    return header + id.encode()[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0") + b"".join(descriptors) + bytes(offset)
