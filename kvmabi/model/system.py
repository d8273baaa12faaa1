# SPDX-License-Identifier: MIT
"""What every VM on one host and kernel shares: features, capabilities and the cache of register maps."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Hashable
from functools import cached_property

from kvmabi import regid, uapi
from kvmabi.model import core, demux, firmware, reset, sme, sve, sysreg
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Family, Part, Refusal, RegisterMap, Row
from kvmabi.model.vcpu import refusal_error
from kvmabi.profiles import idregs, sysregs
from kvmabi.profiles.host import Host
from kvmabi.profiles.kernel import Kernel, kernel_names, load_kernel

FAMILIES = {
    family.name: family
    for family in (
        core.FAMILY,
        sve.FAMILY,
        sme.FAMILY,
        firmware.REGISTERS,
        firmware.BITMAPS,
        sysreg.INVARIANTS,
        sysreg.TIMERS,
        sysreg.FAMILY,
        demux.FAMILY,
    )
}
Memory = bytes | bytearray | mmap.mmap
MIDR_ID = regid.parse("midr_el1")
MAPS_KEPT = 512  # far more than the modes of any VMM; a hostile one starts the cache anew


class System:
    """One host under one kernel: ``/dev/kvm`` as opened, without its ioctl numbers."""

    def __init__(self, host: Host, kernel: Kernel) -> None:
        self.host = host
        self.kernel = kernel
        self.sve_vqs = frozenset(bits // 128 for bits in host.sve_vector_bits)
        self.sme_vqs = (
            frozenset(bits // 128 for bits in host.sme_vector_bits) if "sme" in kernel.features else frozenset()
        )
        self.features = frozenset(name for name in kernel.features if self._offers(name))
        self.sysregs = [reg for reg in sysregs.changed(kernel.sysregs) if reg.name not in kernel.without]
        self.sysreg_by_id = {reg.id: reg for reg in self.sysregs}
        self.sysreg_groups = self._groups()
        self.invariant_ids = frozenset(reg.id for reg in self.sysreg_groups["invariant"])
        self.el0_32bit = self.host_shows("el0_32bit")
        self.copies_exactly = kernel.switches.user_copy_mops and self.host_shows("mops")
        self.targets = frozenset({kernel.target, *self._cpu_targets()})
        self.cpu_keeps = self._cpu_keeps()
        self.mitigates_with_ssbs = firmware.mitigates_with_ssbs(self)
        self._others = self._capabilities_of_another_kernel()
        self._families = [FAMILIES[name] for name in kernel.list_order]
        self._by_coproc = {coproc: family for family in self._families for coproc in family.coprocs if family.answers}
        # Which of the parts of a register map can have an id with a coprocessor field.
        self.places: dict[int, tuple[int, ...]] = {}
        for place, family in enumerate(self._families):
            for coproc in family.coprocs:
                self.places[coproc] = (*self.places.get(coproc, ()), place)
        shows = [self.sysreg_offset(field.id) for _, field, _ in idregs.predicates()]
        self._id_registers = slice(min(shows), max(shows) + 8)
        self._shown: dict[bytes, frozenset[str]] = {}
        self._maps: dict[Mode, RegisterMap] = {}
        self._parts: dict[Hashable, Part] = {}
        self._images: dict[tuple[frozenset[str], int | None], bytes] = {}

    def _groups(self) -> dict[str, list[sysregs.SysReg]]:
        """The system registers in the groups in which this kernel lists them."""
        apart = {"invariant": self.kernel.invariants, "timer": self.kernel.timers}
        by_name = {reg.name: reg for reg in self.sysregs}
        groups = {group: [by_name[name] for name in names if name in by_name] for group, names in apart.items()}
        taken = frozenset(name for names in apart.values() for name in names)
        groups["sysreg"] = [reg for reg in self.sysregs if reg.name not in taken]
        return groups

    def _cpu_targets(self) -> list[int]:
        """The targets of INIT that name the host's CPU."""
        midr = self.host.registers.get(MIDR_ID, 0)
        cpu = midr >> 24 & 0xFF, midr >> 4 & 0xFFF
        return [target for implementer, part, target in self.kernel.cpu_targets if (implementer, part) == cpu]

    def _cpu_keeps(self) -> list[tuple[int, int]]:
        """The registers that KVM_RUN passes through the CPU, which keeps only these bits of them."""
        if not self.host_shows("vhe"):
            return []
        keeps = self.host.cpu_keeps
        loaded = frozenset(self.kernel.run_loads)
        return [(reg.id, keeps[reg.id]) for reg in self.sysregs if reg.id in keeps and reg.name in loaded]

    def writable_masks(self) -> dict[int, int]:
        """KVM_ARM_GET_REG_WRITABLE_MASKS: the bits of each ID register that can be set at all."""
        return {id: mask for id, mask in self.kernel.writable_masks.items() if not self.always_zero(id)}

    def always_zero(self, id: int) -> bool:
        """Whether a system register is an ID register of AArch32 on a host that has none."""
        return not self.el0_32bit and self.sysreg_by_id[id].rule == "aarch32_id"

    def _offers(self, feature: str) -> bool:
        """The host under this kernel accepts the feature in INIT."""
        if feature == "sve":
            return bool(self.sve_vqs)
        if feature == "sme":
            return bool(self.sme_vqs)
        capability = self.kernel.features[feature].capability
        return capability is None or self.host.capabilities_vm.get(capability, 0) > 0

    def _capabilities_of_another_kernel(self) -> frozenset[int]:
        """Numbers by which the kernel that recorded the host told of features that have others here, or none."""
        if self.host.kernel not in kernel_names():
            return frozenset()
        told = {feature.capability for feature in load_kernel(self.host.kernel).features.values()}
        return frozenset(number for number in told if number is not None)

    def check_extension(self, capability: int, *, on_vm: bool) -> int:
        """KVM_CHECK_EXTENSION's answer, 0 for what is not there; EINVAL where the kernel answers so."""
        for name, feature in self.kernel.features.items():
            if feature.capability == capability:
                return int(name in self.features)
        capabilities = self.host.capabilities_vm if on_vm else self.host.capabilities_system
        value = 0 if capability in self._others else capabilities.get(capability, 0)
        if value < 0:
            raise refusal_error(Refusal(errno.EINVAL, f"the kernel answers no question about capability {capability}"))
        return value

    def map(self, mode: Mode) -> RegisterMap:
        """The register map of a mode."""
        known = self._maps.get(mode)
        if known is None:
            if len(self._maps) >= MAPS_KEPT:
                self._maps.clear()
                self._parts.clear()
            parts = [self._part(family, mode) for family in self._families]
            known = self._maps[mode] = RegisterMap(self, mode, parts)
            known.unwritten = sve.unwritten(self, mode)
        return known

    def family_of(self, id: int) -> Family:
        """The family that answers for ids with the coprocessor field of ``id``; system registers for unknown ones."""
        known = self._by_coproc.get(id & uapi.KVM_REG_ARM_COPROC_MASK)
        return known or self._by_coproc[uapi.KVM_REG_ARM64_SYSREG]

    def _part(self, family: Family, mode: Mode) -> Part:
        key = (family.name, family.key(mode))
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part(family.rows(self, mode))
        return part

    def sysreg_offset(self, id: int) -> int:
        """Where a system register of the table stands in the register file, visible or not."""
        return sysreg.offset(sysregs.by_id()[id].slot)

    def host_shows(self, name: str) -> bool:
        """Whether the host has what a predicate of its ID registers tells (idregs.toml, [host])."""
        field, least = idregs.host_predicate(name)
        return field.get(self.host.registers.get(field.id, 0)) >= least

    def shown(self, memory: Memory) -> frozenset[str]:
        """What the ID registers in a register file let be seen."""
        known = self._shown.get(key := bytes(memory[self._id_registers]))
        if known is None:
            if len(self._shown) >= MAPS_KEPT:
                self._shown.clear()
            known = self._shown[key] = frozenset(
                name
                for name, field, least in idregs.predicates()
                if field.get(self.sysreg_value(memory, field.id)) >= least
            )
        return known

    def sysreg_value(self, memory: Memory, id: int) -> int:
        """What a register file holds of a system register."""
        start = self.sysreg_offset(id)
        return int.from_bytes(memory[start : start + 8], "little")

    @cached_property
    def base_image(self) -> bytes:
        """See reset.base."""
        return reset.base(self)

    @cached_property
    def sysreg_rows(self) -> dict[str, list[tuple[frozenset[str], Row]]]:
        """The rows of the system registers, each with what a vCPU needs to have it, by the kernel's groups."""
        return {
            group: [(reg.needs, sysreg.row_of(reg)) for reg in registers]
            for group, registers in self.sysreg_groups.items()
        }

    def reset_image(self, features: frozenset[str], events: int | None = None) -> bytes:
        """A register file as INIT with these features leaves it: see reset.image."""
        image = self._images.get((features, events))
        if image is None:
            image = self._images[features, events] = reset.image(self, features, events)
        return image
