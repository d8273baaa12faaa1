# SPDX-License-Identifier: MIT
"""The SVE registers: SVE_VLS, Z0-Z31, P0-P15 and FFR; their length follows SVCR.SM."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from kvmabi import uapi
from kvmabi.model import state, vls
from kvmabi.model.facts import Facts
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.registermap import Family, RegisterMap
from kvmabi.model.row import Row, refuse

NO_SVE = Refusal(errno.ENOENT, "the vCPU has no SVE", "give KVM_ARM_VCPU_INIT the feature KVM_ARM_VCPU_SVE")
NO_Z = Refusal(
    errno.ENOENT,
    "without SVE, Z, P and FFR exist in streaming mode only",
    "use v<n>, or write svcr with SM = 1 first",
)
NO_SLICE = Refusal(errno.ENOENT, "vector registers have one slice", "use slice 0")
NO_FFR_IN_STREAMING = Refusal(
    errno.ENOENT, "without FEAT_SME_FA64 FFR does not exist in streaming mode", "write svcr with SM = 0 first"
)
VECTORS_NOT_FINALIZED = Refusal(
    errno.EPERM,
    "vector registers are not accessible until the vCPU is finalised",
    "call KVM_ARM_VCPU_FINALIZE(KVM_ARM_VCPU_VEC) first",
)
BAD_SVE_ID = Refusal(errno.EINVAL, "no SVE register has this size and index")

Z_IDS = tuple(uapi.KVM_REG_ARM64_SVE_ZREG(n, 0) for n in range(uapi.KVM_ARM64_SVE_NUM_ZREGS))
P_IDS = tuple(uapi.KVM_REG_ARM64_SVE_PREG(n, 0) for n in range(uapi.KVM_ARM64_SVE_NUM_PREGS))
FFR_ID = uapi.KVM_REG_ARM64_SVE_FFR(0)
PLACES = (
    *((id, state.Z + n * state.Z_BYTES, state.Z_BYTES) for n, id in enumerate(Z_IDS)),
    *((id, state.P + n * state.P_BYTES, state.P_BYTES) for n, id in enumerate(P_IDS)),
    (FFR_ID, state.FFR, state.P_BYTES),
)
_SLICES = uapi.KVM_ARM64_SVE_MAX_SLICES


def _view(facts: Facts, mode: Mode) -> bool:
    """Z and P are accessible: always with SVE, else in streaming mode where the kernel handles that."""
    return mode.sve or (mode.sm and facts.kernel.switches.z_in_streaming_without_sve)


def _ffr(facts: Facts, mode: Mode) -> bool:
    """FFR is accessible."""
    if mode.sm and not facts.kernel.switches.ffr_in_streaming_needs_fa64:
        return mode.sve
    return mode.has_ffr


def unwritten(facts: Facts, mode: Mode) -> int:
    """Returns how many entries at the end of KVM_GET_REG_LIST are counted but not written."""
    if not facts.kernel.switches.reg_list_counts_unwritten or mode.sve or not mode.sm:
        return 0
    return len(Z_IDS) + len(P_IDS) + ("fa64" in mode.exposed)


def _rows(facts: Facts, mode: Mode) -> Iterator[Row]:
    if mode.sve:
        yield vls.row(mode, vls.SVE_ID)
    if not _view(facts, mode):
        return
    follows = facts.kernel.switches.reg_list_follows_svcr
    listed = mode.sve or follows
    closed = None if mode.finalized else VECTORS_NOT_FINALIZED
    z_bytes, p_bytes = mode.vq * 16, mode.vq * 2
    for n, id in enumerate(Z_IDS):
        place = state.Z + n * state.Z_BYTES
        yield Row(id, state.Z_BYTES, place, z_bytes, listed=listed, get=closed, set=closed, partial=True)
    for n, id in enumerate(P_IDS):
        place = state.P + n * state.P_BYTES
        yield Row(id, state.P_BYTES, place, p_bytes, listed=listed, get=closed, set=closed, partial=True)
    accessible = _ffr(facts, mode)
    no_ffr = closed if accessible else NO_FFR_IN_STREAMING
    listed = accessible if follows else mode.sve
    yield Row(FFR_ID, state.P_BYTES, state.FFR, p_bytes, listed=listed, get=no_ffr, set=no_ffr, partial=True)


def _refuse(map: RegisterMap, id: int) -> Row:
    if id == vls.SVE_ID:
        return refuse(id, NO_SVE)
    if Z_IDS[0] <= id < Z_IDS[-1] + _SLICES or P_IDS[0] <= id < FFR_ID + _SLICES:
        if not _view(map.facts, map.mode):
            return refuse(id, NO_Z if map.mode.sme and not map.mode.sm else NO_SVE)
        return refuse(id, NO_SLICE)
    return refuse(id, BAD_SVE_ID)


FAMILY = Family(
    "sve",
    (uapi.KVM_REG_ARM64_SVE,),
    lambda mode: (mode.sve, mode.sme, mode.sm, mode.has_ffr, mode.finalized, mode.vq),
    _rows,
    _refuse,
)
