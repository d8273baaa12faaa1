# SPDX-License-Identifier: MIT
"""The named switches in which kernels differ; switches.toml says what each one decides."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, NamedTuple

from kvmabi.profiles import files
from kvmabi.tables import Reader

Value = bool | int | str


@dataclass(frozen=True)
class Switches:
    """The switches of one kernel, which rules read by name; switches.toml describes each."""

    vcpus_share_features: bool
    init_compares_first: bool
    failed_init_keeps_features: bool
    power_off_lasts: bool
    serror_outlives_init: bool
    svcr_before_finalize: bool
    z_in_streaming_without_sve: bool
    ffr_in_streaming_needs_fa64: bool
    za_id_rows: int
    za_row_alias_rows: int
    za_vq_one_short: bool
    za_get_writes: bool
    za_disabled_errno: str
    za_disabled_before_finalize: bool
    zt0_accessible: bool
    zt0_space: str
    zfr0_with_sme: bool
    smprimap_reads_smcr: bool
    reg_list_sme: bool
    reg_list_follows_svcr: bool
    reg_list_counts_unwritten: bool
    pfr0_keeps_aarch64: bool
    impdef_pmu_is_none: bool
    writable_masks_ioctl: bool
    id_registers_fixed_by_run: bool
    gic_hidden_without_vgic: bool
    invariant_ids_loose: bool
    ccsidr_made_up: bool
    vgic_shows_gic: bool
    its_takes_any_control: bool
    its_targets_by_id: bool
    its_skips_unmapped: bool
    its_saves_unmapped: bool
    its_other_table_unmaps: bool
    run_passes_gic: bool
    vcpu_in_use_first: bool
    timer_irqs_stay_claimed: bool
    user_copy_mops: bool
    irq_line_by_id: bool
    irq_line_wants_vgic_first: bool
    gic_ids_before_init: bool
    affinity_table: bool
    irqfd_in_one_vm: bool
    vm_attributes: bool
    wide_user_addresses: bool


class Switch(NamedTuple):
    """What a switch decides, the values that a profile can give it, and its default."""

    name: str
    text: str
    default: Value
    values: tuple[Value, ...]


@cache
def described() -> dict[str, Switch]:
    """Every switch by name."""
    rows = files.builtin("switches.toml").readers()
    return {
        name: Switch(name, row.text("text"), row.table["default"], tuple(row.items("values")) or (True, False))
        for name, row in rows.items()
    }


def names() -> list[str]:
    """The names of all switches."""
    return [field.name for field in fields(Switches)]


@cache
def flags() -> frozenset[str]:
    """The names of the switches that are true or false."""
    return frozenset(name for name, switch in described().items() if isinstance(switch.default, bool))


def load(read: Reader) -> Switches:
    """Returns the switches of a profile, from its table ``switches``; UsageError for an unknown name or value."""
    given = read.sub("switches")
    read.only(described(), "switches")
    chosen: dict[str, Any] = {}
    for name, switch in described().items():
        value = given.get(name, switch.default)
        if not any(value == other and type(value) is type(other) for other in switch.values):
            raise read.wrong(f"switches.{name}", f"must be one of {', '.join(map(str, switch.values))}")
        chosen[name] = value
    return Switches(**chosen)
