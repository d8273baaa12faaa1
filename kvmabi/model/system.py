# SPDX-License-Identifier: MIT
"""/dev/kvm as opened, without its ioctl numbers: the facts of a host and a kernel, and the cache of register maps."""

from __future__ import annotations

from collections.abc import Hashable

from kvmabi.model import core, demux, firmware, sme, sve, sysreg
from kvmabi.model.facts import Facts
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Families, Family, Part, RegisterMap
from kvmabi.model.state import RegisterFiles
from kvmabi.profiles.host import Host
from kvmabi.profiles.kernel import Kernel

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
MAX_MAPS = 2048  # a trace of random writes to ID registers has 1000 modes; more only clear the cache


class System(Facts):
    """One host under one kernel: what all its VMs share."""

    def __init__(self, host: Host, kernel: Kernel) -> None:
        super().__init__(host, kernel)
        self._families = Families([FAMILIES[name] for name in kernel.list_order])
        self._maps: dict[Mode, RegisterMap] = {}
        self._parts: dict[Hashable, Part] = {}
        self.register_files = RegisterFiles()

    def close(self) -> None:
        """Release the memory of closed vCPUs."""
        self.register_files.close()

    def map(self, mode: Mode) -> RegisterMap:
        """The register map of a mode."""
        regmap = self._maps.get(mode)
        if regmap is None:
            if len(self._maps) >= MAX_MAPS:
                self._maps.clear()
                self._parts.clear()
            parts = [self._part(family, mode) for family in self._families.all]
            regmap = RegisterMap(self, mode, self._families, parts, sve.unwritten(self, mode))
            self._maps[mode] = regmap
        return regmap

    def _part(self, family: Family, mode: Mode) -> Part:
        key = (family.name, family.key(mode))
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part(family.rows(self, mode))
        return part
