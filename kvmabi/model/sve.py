# SPDX-License-Identifier: MIT
"""The SVE registers: SVE_VLS, Z0-Z31, P0-P15 and FFR; their length follows SVCR.SM."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.model import state, vls
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Family, Refusal, Row, refuse

if TYPE_CHECKING:
    from kvmabi.model.system import System

NO_SVE = Refusal(errno.ENOENT, "the vCPU has no SVE", "give KVM_ARM_VCPU_INIT the feature KVM_ARM_VCPU_SVE")
NO_Z = Refusal(
    errno.ENOENT,
    "without SVE, Z, P and FFR exist in streaming mode only",
    "use v<n>, or write svcr with SM = 1 first",
)
NO_SLICE = Refusal(errno.ENOENT, "vector registers have one slice", "use slice 0")
NO_FFR_IN_STREAMING = Refusal(
    errno.ENOENT, "without FEAT_SME_FA64 there is no FFR in streaming mode", "write svcr with SM = 0 first"
)
NOT_FINALIZED = Refusal(
    errno.EPERM,
    "vector registers are out of reach until the vCPU is finalised",
    "call KVM_ARM_VCPU_FINALIZE(KVM_ARM_VCPU_VEC) first",
)
BAD_SVE_ID = Refusal(errno.EINVAL, "no SVE register has this size and index")

Z_IDS = tuple(uapi.KVM_REG_ARM64_SVE_ZREG(n, 0) for n in range(uapi.KVM_ARM64_SVE_NUM_ZREGS))
P_IDS = tuple(uapi.KVM_REG_ARM64_SVE_PREG(n, 0) for n in range(uapi.KVM_ARM64_SVE_NUM_PREGS))
FFR_ID = uapi.KVM_REG_ARM64_SVE_FFR(0)
_SLICES = uapi.KVM_ARM64_SVE_MAX_SLICES


def _rows(_system: System, mode: Mode) -> Iterator[Row]:
    if mode.sve:
        yield vls.row(mode, vls.SVE_ID)
    if not mode.has_z:
        return
    closed = None if mode.finalized else NOT_FINALIZED
    z_bytes, p_bytes = mode.vq * 16, mode.vq * 2
    for n, id in enumerate(Z_IDS):
        yield Row(id, state.Z_BYTES, state.Z + n * state.Z_BYTES, z_bytes, get=closed, set=closed, torn=True)
    for n, id in enumerate(P_IDS):
        yield Row(id, state.P_BYTES, state.P + n * state.P_BYTES, p_bytes, get=closed, set=closed, torn=True)
    no_ffr = closed if mode.has_ffr else NO_FFR_IN_STREAMING
    yield Row(FFR_ID, state.P_BYTES, state.FFR, p_bytes, listed=mode.has_ffr, get=no_ffr, set=no_ffr, torn=True)


def _refuse(_system: System, mode: Mode, id: int) -> Row:
    if id == vls.SVE_ID:
        return refuse(id, NO_SVE)
    if Z_IDS[0] <= id < Z_IDS[-1] + _SLICES or P_IDS[0] <= id < FFR_ID + _SLICES:
        if not mode.has_z:
            return refuse(id, NO_Z if mode.sme else NO_SVE)
        return refuse(id, NO_SLICE)
    return refuse(id, BAD_SVE_ID)


FAMILY = Family(
    "sve",
    (uapi.KVM_REG_ARM64_SVE,),
    lambda mode: (mode.sve, mode.sme, mode.has_z, mode.has_ffr, mode.finalized, mode.vq),
    _rows,
    _refuse,
)
