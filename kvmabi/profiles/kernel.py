# SPDX-License-Identifier: MIT
"""Kernel profiles: the numbers, orders and named switches in which kernels differ for userspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.profiles import files

KIND = "kernels"
FAMILIES = ("core", "sve", "sme", "firmware", "firmware_bitmap", "sysreg", "demux")


class Feature(NamedTuple):
    """A vCPU feature of KVM_ARM_VCPU_INIT: its bit, and the capability that tells whether a host has it."""

    bit: int
    capability: int | None


@dataclass(frozen=True)
class Kernel:
    """One kernel as userspace sees it; rules read these fields and never ask for a version.

    ``features`` by the kernel's lower-case names; ``max_features`` the first bit that INIT refuses
    with ENOENT. ``list_order`` names the register families in KVM_GET_REG_LIST's order. ``without``
    names system registers that this kernel does not have. ``writable_masks`` by register id.
    ``psci_latest``/``psci_without`` are PSCI_VERSION with and without the PSCI_0_2 feature.
    """

    name: str
    title: str
    api_version: int
    target: int
    max_vcpus: int
    vcpu_mmap_bytes: int
    max_features: int
    features: dict[str, Feature]
    list_order: tuple[str, ...]
    without: frozenset[str]
    writable_masks: dict[int, int]
    firmware_registers: int
    firmware_bitmaps: tuple[int, ...]
    ccsidrs: int
    pstate: int
    pstate_32bit: int
    psci_latest: int
    psci_without: int


def kernel_names() -> list[str]:
    """The names of the built-in kernel profiles."""
    return files.builtin_names(KIND)


def load_kernel(name: str) -> Kernel:
    """A built-in kernel profile, or one from a TOML or JSON file of the user's; raises UsageError."""
    table = _with_base(name, depth=0)
    read = files.Reader(name, table)
    features = {key: _feature(read, key, value) for key, value in read.sub("features").items() if value is not False}
    order = tuple(read.items("list_order"))
    unknown = [family for family in order if family not in FAMILIES]
    if unknown or not order:
        raise read.wrong("list_order", f"names the families {', '.join(FAMILIES)}, each once")
    return Kernel(
        name=read.text("name", name),
        title=read.text("title", name),
        api_version=read.number("api_version", most=0xFF),
        target=read.number("target", most=0xFF),
        max_vcpus=read.number("max_vcpus", most=4096),
        vcpu_mmap_bytes=read.number("vcpu_mmap_bytes", most=1 << 20),
        max_features=read.number("max_features", most=7 * 32),
        features=features,
        list_order=order,
        without=frozenset(read.items("without")),
        writable_masks={
            regid.parse(key): read.as_number(f"writable_masks.{key}", value)
            for key, value in read.sub("writable_masks").items()
        },
        firmware_registers=read.number("firmware_registers", most=16),
        firmware_bitmaps=tuple(
            read.as_number("firmware_bitmaps", value) for value in read.items("firmware_bitmaps")[:16]
        ),
        ccsidrs=read.number("ccsidrs", most=14),
        pstate=read.number("pstate"),
        pstate_32bit=read.number("pstate_32bit"),
        psci_latest=read.number("psci_latest"),
        psci_without=read.number("psci_without"),
    )


def _feature(read: files.Reader, key: str, value: Any) -> Feature:
    if not isinstance(value, dict):
        raise read.wrong(f"features.{key}", "must be a table with bit and capability")
    field = files.Reader(f"{read.name}: features.{key}", value)
    capability = field.number("capability", most=2**31 - 1) if "capability" in value else None
    return Feature(field.number("bit", most=7 * 32 - 1), capability)


def _with_base(name: str, depth: int) -> files.Table:
    """A profile's table on top of the one that its ``base`` names: tables are merged, anything else replaced."""
    if depth > 8:
        raise UsageError(f"{name}: profiles are based on one another in a circle")
    table, _ = files.read(KIND, name)
    base = table.get("base")
    if base is None:
        return table
    if not isinstance(base, str):
        raise UsageError(f"{name}: base: must be a string")
    return _merge(_with_base(base, depth + 1), table)


def _merge(base: files.Table, over: files.Table) -> files.Table:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
