# SPDX-License-Identifier: MIT
"""The mode of a vCPU: everything that decides which registers exist, their sizes and their behaviour."""

from __future__ import annotations

from typing import NamedTuple

SVCR_SM = 1 << 0
SVCR_ZA = 1 << 1


class Mode(NamedTuple):
    """One vCPU's mode; two vCPUs in equal modes (on one host and kernel) have equal register maps.

    ``sve_vq`` and ``sme_vq`` are the largest vector lengths in quadwords (16 bytes) that the
    vCPU may use, 0 without the feature. ``exposed`` names what the VM's ID registers expose
    (see profiles/idregs.toml), so a write to one of them can change the mode of every vCPU. ``narrowed``
    is how many x registers a set of any core register truncates to 32 bits, 0 while pstate is in a 64-bit mode.
    """

    features: frozenset[str]
    finalized: bool
    sve_vq: int
    sme_vq: int
    sm: bool
    za: bool
    exposed: frozenset[str]
    narrowed: int = 0

    @property
    def sve(self) -> bool:
        """The vCPU has the SVE feature."""
        return "sve" in self.features

    @property
    def sme(self) -> bool:
        """The vCPU has the SME feature (the flag of INIT, not the ID register)."""
        return "sme" in self.features

    @property
    def vector(self) -> bool:
        """The vCPU needs KVM_ARM_VCPU_FINALIZE before it runs or lists its registers."""
        return self.sve or self.sme

    @property
    def vq(self) -> int:
        """The length of Z in quadwords now: SME's in streaming mode, else SVE's; 0 if there is no Z."""
        return self.sme_vq if self.sm else self.sve_vq

    @property
    def has_z(self) -> bool:
        """Z and P are visible, so V is not."""
        return self.sve or self.sm

    @property
    def has_ffr(self) -> bool:
        """FFR is visible: in streaming mode only with FEAT_SME_FA64."""
        return "fa64" in self.exposed if self.sm else self.sve

    @property
    def svcr(self) -> int:
        """SVCR's value."""
        return (SVCR_SM if self.sm else 0) | (SVCR_ZA if self.za else 0)

    def __str__(self) -> str:
        """The mode in a report, such as "SVCR.SM=1 SVCR.ZA=0, not finalised"."""
        parts = [f"SVCR.SM={self.sm:d} SVCR.ZA={self.za:d}"] if self.sme else []
        if self.vector and not self.finalized:
            parts.append("not finalised")
        return ", ".join(parts)
