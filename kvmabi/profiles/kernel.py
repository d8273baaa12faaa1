# SPDX-License-Identifier: MIT
"""Kernel profiles: the numbers, orders, tables and named switches in which kernels differ for userspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.profiles import files, switches, sysregs
from kvmabi.profiles.files import Reader
from kvmabi.profiles.switches import Switches
from kvmabi.tables import Table

KIND = "kernels"
CHANGES_OF = "changes_of"
"""The key of a profile that takes what another profile changes in its own base: of a patch series, say."""
LIST_GROUPS = frozenset({*regid.FAMILIES.values(), "invariant", "timer"})
"""The groups of KVM_GET_REG_LIST: register families, and system registers that a kernel lists apart."""


class Feature(NamedTuple):
    """A vCPU feature of KVM_ARM_VCPU_INIT: its bit, and the capability that reports whether a host has it."""

    bit: int
    capability: int | None


@dataclass(frozen=True, repr=False)
class Kernel:
    """One kernel as userspace sees it. Rules read these fields and never a version.

    ``forecast`` is "" for a kernel that exists; otherwise the profile is a guess at one to come, and it says what of.
    ``cpu_targets`` lists targets that INIT accepts on one CPU only: MIDR's implementer and part, the target.
    ``features`` by the kernel's lower-case names; ``max_features`` is the first bit for which INIT fails
    with ENOENT. ``list_order`` names the register families in KVM_GET_REG_LIST's order, ``invariants`` and
    ``timers`` the system registers listed in groups of their own. ``without`` names system registers
    that this kernel does not have, ``sysregs`` columns of the table that differ. ``writable_masks`` by
    register id. ``firmware_bitmaps`` are the values after INIT, ``firmware_bitmap_bits`` what can be set.
    ``psci_versions`` are those that can be set, ``psci_latest``/``psci_without`` PSCI_VERSION with and
    without the PSCI_0_2 feature. ``pmu_attrs`` counts the attributes of a vCPU's PMU, ``timer_irqs`` are the PPIs of
    its timers before userspace sets them, ``vgic_groups`` the groups of a vGICv3's attributes,
    ``without_capabilities`` those that a host recorded under a later kernel reports there only. ``run_loads`` names the
    registers that KVM_RUN passes through the CPU.
    """

    name: str
    title: str
    forecast: str
    api_version: int
    target: int
    cpu_targets: tuple[tuple[int, int, int], ...]
    max_vcpus: int
    vcpu_mmap_bytes: int
    max_features: int
    features: dict[str, Feature]
    list_order: tuple[str, ...]
    invariants: tuple[str, ...]
    timers: tuple[str, ...]
    without: frozenset[str]
    sysregs: dict[str, dict[str, Any]]
    writable_masks: dict[int, int]
    firmware_registers: int
    firmware_bitmaps: tuple[int, ...]
    firmware_bitmap_bits: tuple[int, ...]
    pstate: int
    pstate_el2: int
    pstate_32bit: int
    psci_versions: frozenset[int]
    psci_latest: int
    psci_without: int
    run_loads: tuple[str, ...]
    pmu_attrs: int
    timer_irqs: tuple[int, ...]
    vgic_groups: frozenset[int]
    without_capabilities: frozenset[int]
    switches: Switches

    @property
    def label(self) -> str:
        """The name, marked if it is a forecast: "sme-forecast (forecast)"."""
        return f"{self.name} (forecast)" if self.forecast else self.name

    def __repr__(self) -> str:
        return f"<Kernel {self.label}: {self.title}>"


def kernel_names() -> list[str]:
    """The names of the built-in kernel profiles."""
    return files.builtin_names(KIND)


def load_kernel(name: str | Kernel) -> Kernel:
    """Returns a built-in kernel profile, or one from a TOML or JSON file; a Kernel is returned as it is.

    Raises UsageError for anything else.
    """
    if isinstance(name, Kernel):
        return name
    return kernel_of(name, table_of(name))


def table_of(name: str) -> Table:
    """A profile's table on top of the ones it is based on; raises UsageError."""
    return _with_base(name, depth=0)


def kernel_of(name: str, table: Table) -> Kernel:
    """Returns the kernel that a table describes; the UsageError names the field that is wrong."""
    read = Reader(name, table)
    features = {key: _feature(read, key, value) for key, value in read.sub("features").items() if value is not False}
    _numbers_differ(read, features)
    order = read.texts("list_order", LIST_GROUPS)
    if not order or len(set(order)) != len(order):
        raise read.wrong("list_order", f"must name each of {', '.join(sorted(LIST_GROUPS))} at most once")
    return Kernel(
        name=read.text("name", name),
        title=read.text("title", name),
        forecast=read.text("forecast", ""),
        api_version=read.number("api_version", most=0xFF),
        target=read.number("target", most=0xFF),
        cpu_targets=tuple(_target(read, row) for row in read.items("cpu_targets")[:64]),
        max_vcpus=read.number("max_vcpus", most=4096),
        vcpu_mmap_bytes=read.number("vcpu_mmap_bytes", most=1 << 20),
        max_features=max(read.number("max_features", most=7 * 32), *(1 + feature.bit for feature in features.values())),
        features=features,
        list_order=order,
        invariants=_register_names(read, "invariants"),
        timers=_register_names(read, "timers"),
        without=frozenset(_register_names(read, "without")),
        sysregs=_changes(read),
        writable_masks={
            read.register(f"writable_masks.{key}", key): read.as_number(f"writable_masks.{key}", value)
            for key, value in read.sub("writable_masks").items()
        },
        firmware_registers=read.number("firmware_registers", most=16),
        firmware_bitmaps=_numbers(read, "firmware_bitmaps"),
        firmware_bitmap_bits=_numbers(read, "firmware_bitmap_bits"),
        pstate=read.number("pstate"),
        pstate_el2=read.number("pstate_el2"),
        pstate_32bit=read.number("pstate_32bit"),
        psci_versions=frozenset(_numbers(read, "psci_versions")),
        psci_latest=read.number("psci_latest"),
        psci_without=read.number("psci_without"),
        run_loads=_register_names(read, "run_loads"),
        pmu_attrs=read.number("pmu_attrs", most=16),
        timer_irqs=_numbers(read, "timer_irqs"),
        vgic_groups=frozenset(_numbers(read, "vgic_groups")),
        without_capabilities=frozenset(_numbers(read, "without_capabilities")),
        switches=switches.load(read),
    )


def _feature(read: Reader, key: str, value: Any) -> Feature:
    if not isinstance(value, dict):
        raise read.wrong(f"features.{key}", "must be a table with bit and capability, or false")
    field = read.reader("features").reader(key)
    field.only(Feature._fields)
    capability = field.number("capability", most=2**31 - 1) if "capability" in value else None
    return Feature(field.number("bit", most=7 * 32 - 1), capability)


def _numbers_differ(read: Reader, features: Mapping[str, Feature]) -> None:
    """Raises UsageError for two features with one bit, or with one capability."""
    for place, what in enumerate(Feature._fields):
        taken: dict[int, str] = {}
        for name, feature in features.items():
            number = feature[place]
            if number is not None and taken.setdefault(number, name) != name:
                raise read.wrong(f"features.{name}", f"{what} {number} is that of {taken[number]}")


def _target(read: Reader, row: Any) -> tuple[int, int, int]:
    if not isinstance(row, list) or len(row) != 3:
        raise read.wrong("cpu_targets", "must list MIDR's implementer and part, and the target")
    implementer, part, target = (read.as_number("cpu_targets", value, 0xFFF) for value in row)
    return implementer, part, target


def _numbers(read: Reader, key: str) -> tuple[int, ...]:
    return tuple(read.as_number(key, value) for value in read.items(key)[:16])


def _register_names(read: Reader, key: str) -> tuple[str, ...]:
    return read.texts(key, sysregs.names())


def _changes(read: Reader) -> dict[str, dict[str, Any]]:
    changes = read.sub("sysregs")
    read.only(sysregs.names(), "sysregs")
    for name, columns in changes.items():
        if not isinstance(columns, dict):
            raise read.wrong(f"sysregs.{name}", "must be a table of columns of sysregs.toml")
        sysregs.check(read.reader("sysregs").reader(name))
    return changes


def _with_base(name: str, depth: int) -> Table:
    """A profile's table on top of the one that its ``base`` names, and of ``changes_of`` if it has that.

    Tables are merged, except those that ``replaces`` names; anything else is replaced.
    """
    if depth > 8:
        raise UsageError(f"{name}: profiles are based on each other in a circle")
    table = _own(name)
    base = table.get("base")
    if base is None:
        if CHANGES_OF in table:
            raise UsageError(f"{name}: {CHANGES_OF}: needs a base for the changes")
        return table
    if not isinstance(base, str):
        raise UsageError(f"{name}: base: must be a string")
    below = _with_base(base, depth + 1)
    if CHANGES_OF in table:
        changes = Reader(name, table).text(CHANGES_OF)
        below = _over(changes, below, {key: value for key, value in _own(changes).items() if key != CHANGES_OF})
    return _over(name, below, table)


def _own(name: str) -> Table:
    """What a profile's file says, without its base; its keys are checked."""
    table, _ = files.read(KIND, name)
    Reader(name, table).only({"base", "replaces", CHANGES_OF, *(field.name for field in fields(Kernel))})
    return table


def _over(name: str, below: Table, table: Table) -> Table:
    """A profile's table on top of another one."""
    kept = dict(below)
    for key in Reader(name, table).texts("replaces", {field.name for field in fields(Kernel)}):
        kept.pop(key, None)
    return _merge(kept, table)


def _merge(base: Table, over: Mapping[str, Any]) -> Table:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
