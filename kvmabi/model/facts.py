# SPDX-License-Identifier: MIT
"""What a host and a kernel determine together: features, vector lengths, capabilities, tables and offsets."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from kvmabi import regid
from kvmabi.model import state
from kvmabi.model.refusal import Refusal
from kvmabi.profiles import idregs, sysregs
from kvmabi.profiles.host import Host
from kvmabi.profiles.kernel import Kernel, kernel_names, load_kernel

Bytes = bytes | bytearray | mmap.mmap
Made = TypeVar("Made")
MIDR_ID = regid.parse("midr_el1")
MAX_VIEWS = 512  # far more than the ID registers of any VMM's VMs; more only clear the cache


class Facts:
    """One host under one kernel.

    ``sve_vqs`` and ``sme_vqs`` are the vector lengths in quadwords (16 bytes), ``features`` the vCPU features that
    INIT accepts, ``targets`` its targets. ``sysregs`` are the system registers that the kernel has, ``sysreg_groups``
    the same in the groups in which it lists them. ``copies_exactly``: a copy from or to userspace stops at the byte
    that faults. ``cpu_keeps`` are the registers that KVM_RUN passes through the CPU, with the bits it preserves.
    """

    def __init__(self, host: Host, kernel: Kernel) -> None:
        self.host = host
        self.kernel = kernel
        sme_bits = host.sme_vector_bits if "sme" in kernel.features else ()
        self.sve_vqs = frozenset(bits // 128 for bits in host.sve_vector_bits)
        self.sme_vqs = frozenset(bits // 128 for bits in sme_bits)
        self.features = frozenset(name for name in kernel.features if self._offers(name))
        self.sysregs = [reg for reg in sysregs.changed(kernel.sysregs) if reg.name not in kernel.without]
        self.sysreg_by_id = {reg.id: reg for reg in self.sysregs}
        self.sysreg_groups = self._groups()
        self.invariant_ids = frozenset(reg.id for reg in self.sysreg_groups["invariant"])
        self.el0_32bit = self.host_shows("el0_32bit")
        self.copies_exactly = kernel.switches.user_copy_mops and self.host_shows("mops")
        self.targets = frozenset({kernel.target, *self._cpu_targets()})
        self.cpu_keeps = self._cpu_keeps()
        self._others = self._capabilities_of_another_kernel()
        offsets = [self.sysreg_offset(field.id) for _, field, _ in idregs.predicates()]
        self._id_registers = slice(min(offsets), max(offsets) + 8)
        self._exposed: dict[bytes, frozenset[str]] = {}
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Returns ``make()``, called once per ``key``: for tables that depend only on host and kernel."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    # --- features, capabilities, targets

    def _offers(self, feature: str) -> bool:
        """Whether INIT accepts the feature on this host and kernel."""
        if feature == "sve":
            return bool(self.sve_vqs)
        if feature == "sme":
            return bool(self.sme_vqs)
        capability = self.kernel.features[feature].capability
        return capability is None or self.host.capabilities_vm.get(capability, 0) > 0

    def _cpu_targets(self) -> list[int]:
        """The targets of INIT that name the host's CPU."""
        midr = self.host.registers.get(MIDR_ID, 0)
        cpu = midr >> 24 & 0xFF, midr >> 4 & 0xFFF
        return [target for implementer, part, target in self.kernel.cpu_targets if (implementer, part) == cpu]

    def _capabilities_of_another_kernel(self) -> frozenset[int]:
        """Capability numbers that the recording kernel used for features which this kernel numbers differently."""
        if self.host.kernel not in kernel_names():
            return frozenset()
        numbers = {feature.capability for feature in load_kernel(self.host.kernel).features.values()}
        return frozenset(number for number in numbers if number is not None)

    def check_extension(self, capability: int, *, on_vm: bool) -> int:
        """Returns what KVM_CHECK_EXTENSION does, 0 for an absent capability. Raises KvmError (EINVAL) as the kernel."""
        for name, feature in self.kernel.features.items():
            if feature.capability == capability:
                return int(name in self.features)
        capabilities = self.host.capabilities_vm if on_vm else self.host.capabilities_system
        value = (
            0
            if capability in self._others or capability in self.kernel.without_capabilities
            else capabilities.get(capability, 0)
        )
        if value < 0:
            raise Refusal(errno.EINVAL, f"the kernel does not answer for capability {capability}").error()
        return value

    # --- system registers

    def _groups(self) -> dict[str, list[sysregs.SysReg]]:
        apart = {"invariant": self.kernel.invariants, "timer": self.kernel.timers}
        by_name = {reg.name: reg for reg in self.sysregs}
        groups = {group: [by_name[name] for name in names if name in by_name] for group, names in apart.items()}
        taken = frozenset(name for names in apart.values() for name in names)
        groups["sysreg"] = [reg for reg in self.sysregs if reg.name not in taken]
        return groups

    def _cpu_keeps(self) -> list[tuple[int, int]]:
        if not self.host_shows("vhe"):
            return []
        keeps = self.host.cpu_keeps
        loaded = frozenset(self.kernel.run_loads)
        return [(reg.id, keeps[reg.id]) for reg in self.sysregs if reg.id in keeps and reg.name in loaded]

    def writable_masks(self) -> dict[int, int]:
        """KVM_ARM_GET_REG_WRITABLE_MASKS: the bits of each ID register that can be set at all."""
        return {id: mask for id, mask in self.kernel.writable_masks.items() if not self.always_zero(id)}

    def always_zero(self, id: int) -> bool:
        """Whether a system register is an ID register of AArch32 on a host without AArch32."""
        return not self.el0_32bit and self.sysreg_by_id[id].rule == "aarch32_id"

    def sysreg_offset(self, id: int) -> int:
        """Returns the offset of a system register in the register file, visible or not."""
        return state.sysreg_offset(sysregs.by_id()[id].slot)

    def sysreg_value(self, memory: Bytes, id: int) -> int:
        """Returns the value of a system register in a register file."""
        start = self.sysreg_offset(id)
        return int.from_bytes(memory[start : start + 8], "little")

    # --- ID registers

    def host_shows(self, name: str) -> bool:
        """Whether the host's ID registers satisfy a predicate (idregs.toml, [host])."""
        field, least = idregs.host_predicate(name)
        return field.get(self.host.registers.get(field.id, 0)) >= least

    def exposed(self, memory: Bytes) -> frozenset[str]:
        """Returns what the ID registers in a register file expose (idregs.toml, [shows])."""
        key = bytes(memory[self._id_registers])
        names = self._exposed.get(key)
        if names is None:
            if len(self._exposed) >= MAX_VIEWS:
                self._exposed.clear()
            names = self._exposed[key] = frozenset(
                name
                for name, field, least in idregs.predicates()
                if field.get(self.sysreg_value(memory, field.id)) >= least
            )
        return names
