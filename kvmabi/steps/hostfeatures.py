# SPDX-License-Identifier: MIT
"""What a host offers to a VMM: the cases adapt to it, and a capture begins with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HostFeatures:
    """What a kernel on a host offers to a VMM.

    ``features`` are the vCPU features (names of the kernel's profile) that INIT accepts. ``sve_vqs`` and ``sme_vqs``
    are the vector lengths in quadwords (16 bytes). ``capabilities_system`` and ``capabilities_vm`` hold the results of
    KVM_CHECK_EXTENSION (an int, or the errno's name) that are not 0. ``traits`` are the other things that cases may
    need: sme2, fa64, el0_32bit, writable_masks, serror_esr.
    """

    kernel: str
    release: str
    target: int
    features: frozenset[str]
    sve_vqs: tuple[int, ...]
    sme_vqs: tuple[int, ...]
    traits: frozenset[str]
    capabilities_system: Mapping[int, int | str] = field(repr=False)
    capabilities_vm: Mapping[int, int | str] = field(repr=False)

    def __str__(self) -> str:
        lengths = [
            f"{name} {','.join(str(vq * 128) for vq in vqs)} bits"
            for name, vqs in (("SVE", self.sve_vqs), ("SME", self.sme_vqs))
            if vqs
        ]
        rest = sorted((self.features | self.traits) - {"sve", "sme"})
        return f"Linux {self.release} ({self.kernel}): {'; '.join([*lengths, ' '.join(rest)])}"
