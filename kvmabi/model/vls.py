# SPDX-License-Identifier: MIT
"""The vector-length pseudo-registers SVE_VLS and SME_VLS: a bitmap of lengths in quadwords, bit 0 for one quadword.

A set can only cut the host's set off at the top, and only before KVM_ARM_VCPU_FINALIZE. The two
lengths are independent of one another.
"""

from __future__ import annotations

import errno

from kvmabi import uapi
from kvmabi.model import state
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.row import Outcome, Owner, Row, checked

FINALIZED = Refusal(
    errno.EPERM,
    "the vector lengths are fixed once the vCPU is finalised",
    "write it between KVM_ARM_VCPU_INIT and KVM_ARM_VCPU_FINALIZE",
)
SVE_ID = uapi.KVM_REG_ARM64_SVE_VLS
SME_ID = uapi.KVM_REG_ARM64_SME_VLS


def encode(vqs: frozenset[int], max_vq: int) -> bytes:
    """The register's 64 bytes for the lengths of ``vqs`` (quadwords) up to ``max_vq``."""
    return sum(1 << (vq - 1) for vq in vqs if vq <= max_vq).to_bytes(state.VLS_BYTES, "little")


def row(mode: Mode, id: int) -> Row:
    """The row of SVE_VLS or SME_VLS on a vCPU that has the feature."""
    offset = state.SVE_VLS if id == SVE_ID else state.SME_VLS
    fixed = FINALIZED if mode.finalized else None
    return Row(id, state.VLS_BYTES, offset, state.VLS_BYTES, set=fixed, setter=None if fixed else checked(_set))


def _set(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Take over a vector-length set: the host's, cut off after one of its members."""
    sve = row.id == SVE_ID
    host = vcpu.system.sve_vqs if sve else vcpu.system.sme_vqs
    max_vq = int.from_bytes(data, "little").bit_length()
    if max_vq not in host or data != encode(host, max_vq):
        lengths = ", ".join(str(vq * 128) for vq in sorted(host))
        return Refusal(
            errno.EINVAL,
            "not the host's vector-length set cut off at the top",
            f"the host has {lengths} bits: keep all up to the largest one you want",
        )
    vcpu.store(row, data)
    if sve:
        vcpu.remap(sve_vq=max_vq)
    else:
        vcpu.remap(sme_vq=max_vq)
    return None
