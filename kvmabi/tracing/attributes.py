# SPDX-License-Identifier: MIT
"""The names of attributes: their groups, and what is in them, by the kind of file that has them.

>>> names("device", 0, 2)
('VGIC_GRP_ADDR', 'VGIC_V3_ADDR_TYPE_DIST')
>>> names("device", 5, 0x100000008)
('VGIC_GRP_REDIST_REGS', 'gicr_typer[cpu1]')
"""

from __future__ import annotations

from typing import Final

from kvmabi import gicnames, uapi
from kvmabi.tracing.names import number

DEVICE, VCPU, VM = gicnames.DEVICE, "vcpu", "vm"
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    DEVICE: (
        *("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_DEV_ARM_VGIC_GRP_DIST_REGS", "KVM_DEV_ARM_VGIC_GRP_CPU_REGS"),
        *("KVM_DEV_ARM_VGIC_GRP_NR_IRQS", "KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_GRP_REDIST_REGS"),
        *("KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS", "KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO", "KVM_DEV_ARM_VGIC_GRP_ITS_REGS"),
        "KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ",
    ),
    VCPU: ("KVM_ARM_VCPU_PMU_V3_CTRL", "KVM_ARM_VCPU_TIMER_CTRL", "KVM_ARM_VCPU_PVTIME_CTRL"),
    VM: ("KVM_ARM_VM_SMCCC_CTRL",),
}
"""The groups of a kind of file. A vGIC and an ITS share theirs."""
MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    **gicnames.MEMBERS,
    "KVM_ARM_VCPU_PMU_V3_CTRL": (
        *("KVM_ARM_VCPU_PMU_V3_IRQ", "KVM_ARM_VCPU_PMU_V3_INIT", "KVM_ARM_VCPU_PMU_V3_FILTER"),
        *("KVM_ARM_VCPU_PMU_V3_SET_PMU", "KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS"),
    ),
    "KVM_ARM_VCPU_TIMER_CTRL": (
        *("KVM_ARM_VCPU_TIMER_IRQ_VTIMER", "KVM_ARM_VCPU_TIMER_IRQ_PTIMER"),
        *("KVM_ARM_VCPU_TIMER_IRQ_HVTIMER", "KVM_ARM_VCPU_TIMER_IRQ_HPTIMER"),
    ),
    "KVM_ARM_VCPU_PVTIME_CTRL": ("KVM_ARM_VCPU_PVTIME_IPA",),
    "KVM_ARM_VM_SMCCC_CTRL": ("KVM_ARM_VM_SMCCC_FILTER",),
}
"""The attributes of a group that have names; the others are registers."""
PREFIXES = ("KVM_DEV_ARM_", "KVM_ARM_", "KVM_")


def names(kind: str, group: int, attr: int) -> tuple[str, str]:
    """The names of a group and of an attribute on a kind of file; numbers as text where they have none."""
    name = next((name for name in GROUPS.get(kind, ()) if vars(uapi)[name] == group), "")
    member = next((name for name in MEMBERS.get(name, ()) if vars(uapi)[name] == attr), "")
    register = gicnames.name_of(group, attr) if kind == DEVICE and name and not member else ""
    if register and not register.startswith(f"{group}/"):
        return _short(name), register
    return _short(name) or number(group), _short(member) or number(attr)


def _short(name: str) -> str:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
