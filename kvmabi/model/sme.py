# SPDX-License-Identifier: MIT
"""The SME registers: SME_VLS, ZA's rows and ZT0, and SVCR's effects on all vector state."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmabi import regid, uapi
from kvmabi.model import core, state, sve, vls
from kvmabi.model.mode import SVCR_SM, SVCR_ZA, Mode
from kvmabi.model.registermap import Effect, Family, Refusal, Row, refuse

if TYPE_CHECKING:
    from kvmabi.model.system import System
    from kvmabi.model.vcpu import Vcpu

NO_SME = Refusal(errno.ENOENT, "the vCPU has no SME", "give KVM_ARM_VCPU_INIT the feature KVM_ARM_VCPU_SME")
NO_SME2 = Refusal(errno.ENOENT, "ZT0 needs SME2: ID_AA64PFR1_EL1.SME is below 2 in this VM")
ZA_DISABLED = Refusal(errno.EBUSY, "ZA and ZT0 are out of reach while SVCR.ZA = 0", "write svcr with ZA = 1 first")
BAD_SME_ID = Refusal(errno.EINVAL, "no SME register has this size and index")
BAD_SVCR = Refusal(errno.EINVAL, "SVCR has no bits but SM (0) and ZA (1)")

ZA_IDS = tuple(uapi.KVM_REG_ARM64_SME_ZAHREG(n, 0) for n in range(uapi.KVM_ARM64_SME_MAX_ZAHREG))
FPMR_ID = regid.parse("fpmr")
ZT0_ID = uapi.KVM_REG_ARM64_SME_ZTREG(0)
FPSR_RESET = (0x0800009F).to_bytes(4, "little")
FPMR_RESET = bytes(8)


def _rows(_system: System, mode: Mode) -> Iterator[Row]:
    if not mode.sme:
        return
    yield vls.row(mode, vls.SME_ID)
    closed = None
    if not mode.za:
        closed = ZA_DISABLED
    elif not mode.finalized:
        closed = sve.NOT_FINALIZED
    svl_bytes = mode.sme_vq * 16
    for n, id in enumerate(ZA_IDS[:svl_bytes]):
        offset = state.ZA + n * state.Z_BYTES
        yield Row(id, state.Z_BYTES, offset, svl_bytes, listed=mode.za, get=closed, set=closed, torn=True)
    if "sme2" in mode.shown:
        yield Row(ZT0_ID, state.ZT_BYTES, state.ZT0, state.ZT_BYTES, listed=mode.za, get=closed, set=closed, torn=True)


def _refuse(_system: System, mode: Mode, id: int) -> Row:
    if id == vls.SME_ID:
        return refuse(id, NO_SME)
    if id == ZT0_ID:
        return refuse(id, NO_SME2 if mode.sme else NO_SME)
    rows = mode.sme_vq * 16 if mode.sme else len(ZA_IDS)
    if ZA_IDS[0] <= id <= ZA_IDS[rows - 1] + uapi.KVM_ARM64_SVE_MAX_SLICES - 1:
        return refuse(id, sve.NO_SLICE if mode.sme else NO_SME)
    return refuse(id, BAD_SME_ID)


def set_svcr(vcpu: Vcpu, row: Row, data: bytes) -> list[Effect]:
    """Write SVCR: a change of SM resets V, Z, P, FFR, FPSR and FPMR; ZA and ZT0 are zero whenever ZA becomes 1.

    Nothing can see ZA while SVCR.ZA = 0, so it is zeroed when ZA is left: that is when its value is lost.
    """
    value = int.from_bytes(data, "little")
    if value & ~(SVCR_SM | SVCR_ZA):
        raise vcpu.refused(row, BAD_SVCR)
    sm, za = bool(value & SVCR_SM), bool(value & SVCR_ZA)
    effects: list[Effect] = []
    if za != vcpu.mode.za:
        effects += vcpu.wipe(state.ZA, state.ZT0 + state.ZT_BYTES, (*ZA_IDS, ZT0_ID))
    if sm != vcpu.mode.sm:
        effects += vcpu.wipe(state.V, state.V + 32 * state.V_BYTES, core.V_IDS)
        effects += vcpu.wipe(state.Z, state.FFR + state.P_BYTES, (*sve.Z_IDS, *sve.P_IDS, sve.FFR_ID))
        effects += vcpu.overwrite(core.FPSR_ID, state.FPSR, FPSR_RESET)
        effects += vcpu.overwrite(FPMR_ID, vcpu.system.sysreg_offset(FPMR_ID), FPMR_RESET)
    vcpu.store(row, data)
    vcpu.remap(sm=sm, za=za)
    return effects


FAMILY = Family(
    "sme",
    (uapi.KVM_REG_ARM64_SME,),
    lambda mode: (mode.sme, mode.finalized, mode.sme_vq, mode.za, "sme2" in mode.shown),
    _rows,
    _refuse,
)
