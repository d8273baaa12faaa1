# SPDX-License-Identifier: MIT
"""Which features of KVM_ARM_VCPU_INIT a vCPU has, from the registers that it has."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from kvmabi import regid
from kvmabi.model.plan import LENGTHS, SVCR

SIGNS = {
    "sve": (LENGTHS[0], regid.parse("zcr_el1")),
    "sme": (LENGTHS[1], SVCR, regid.parse("smcr_el1")),
    "pmu_v3": (regid.parse("pmcr_el0"),),
    "ptrauth_address": (regid.parse("apiakeylo_el1"),),
    "ptrauth_generic": (regid.parse("apgakeylo_el1"),),
    "has_el2": (regid.parse("hcr_el2"),),
}
"""Registers that exist only on a vCPU with a feature."""


@cache
def _features() -> dict[int, str]:
    return {id: feature for feature, ids in SIGNS.items() for id in ids}


def features_of(ids: Iterable[int]) -> frozenset[str]:
    """The features that a vCPU with these registers has; those that no register shows are not among them.

    >>> sorted(features_of(map(regid.parse, ["x0", "svcr", "pmcr_el0"])))
    ['pmu_v3', 'sme']
    """
    signs = _features()
    return frozenset(signs[id] for id in ids if id in signs)
