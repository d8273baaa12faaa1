# SPDX-License-Identifier: MIT
"""The features of KVM_ARM_VCPU_INIT that a vCPU must have had, from the registers that it has."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from kvmabi import regid
from kvmabi.model.vls import SME_ID, SVE_ID
from kvmabi.profiles import features, sysregs

PSCI_VERSION = regid.parse("psci_version")
PSCI_WITHOUT = 1
"""PSCI_VERSION of a vCPU without the feature PSCI_0_2 (0.1)."""


def features_of(ids: Collection[int], psci_version: int | None = None) -> frozenset[str]:
    """The features without which a register of a list would not exist; those that no register shows are left out.

    PSCI_0_2 is assumed unless ``psci_version`` says that the vCPU has none.

    >>> sorted(features_of(map(regid.parse, ["pmcr_el0", "svcr", "x0"])))
    ['pmu_v3', 'psci_0_2', 'sme']
    """
    needed = _needed()
    found = frozenset(needed[id] for id in ids if id in needed)
    return found if psci_version == PSCI_WITHOUT else found | {"psci_0_2"}


@cache
def _needed() -> dict[int, str]:
    """For each register that exists only with one certain feature: that feature."""
    known = frozenset(features.table())
    needed = {SVE_ID: "sve", SME_ID: "sme"}
    for reg in sysregs.table():
        names = reg.needs & known
        if len(names) == 1:
            needed[reg.id] = next(iter(names))
    return needed
