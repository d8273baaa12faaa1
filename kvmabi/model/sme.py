# SPDX-License-Identifier: MIT
"""The SME registers: SME_VLS, ZA's rows and ZT0, and SVCR's effects on all vector state."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from kvmabi import regid, uapi
from kvmabi.model import core, state, sve, vls
from kvmabi.model.effects import Effects
from kvmabi.model.facts import Facts
from kvmabi.model.mode import SVCR_SM, SVCR_ZA, Mode
from kvmabi.model.refusal import FAULT, Refusal
from kvmabi.model.registermap import Family, RegisterMap
from kvmabi.model.row import Buffer, Outcome, Owner, Row, refuse

NO_SME = Refusal(errno.ENOENT, "the vCPU has no SME", "give KVM_ARM_VCPU_INIT the feature KVM_ARM_VCPU_SME")
NO_SME2 = Refusal(errno.ENOENT, "ZT0 needs SME2: ID_AA64PFR1_EL1.SME is below 2 in this VM")
ZA_DISABLED = Refusal(errno.EBUSY, "ZA and ZT0 are not accessible while SVCR.ZA = 0", "write svcr with ZA = 1 first")
BAD_SME_ID = Refusal(errno.EINVAL, "no SME register has this size and index")
OVERFLOW = (
    "this kernel now corrupts its own memory: it zeroes ZT0 beyond the buffer that it allocated, because"
    " ID_AA64PFR1_EL1.SME was below 2 at KVM_ARM_VCPU_FINALIZE; write the ID registers once, before FINALIZE"
)
BAD_SVCR = Refusal(errno.EINVAL, "SVCR has no bits except SM (0) and ZA (1)")

ZA_IDS = tuple(uapi.KVM_REG_ARM64_SME_ZAHREG(n, 0) for n in range(uapi.KVM_ARM64_SME_MAX_ZAHREG))
FPMR_ID = regid.parse("fpmr")
SMCR_EL2_ID = regid.parse("smcr_el2")
ZT0_ID = uapi.KVM_REG_ARM64_SME_ZTREG(0)
ZA_PLACES = (
    *((id, state.ZA + n * state.Z_BYTES, state.Z_BYTES) for n, id in enumerate(ZA_IDS)),
    (ZT0_ID, state.ZT0, state.ZT_BYTES),
)
FPSR_RESET = (0x0800009F).to_bytes(4, "little")
FPMR_RESET = bytes(8)


def _closed(facts: Facts, mode: Mode) -> Refusal | None:
    """Why ZA and ZT0 are not accessible in this mode; kernels differ in which reason comes first."""
    switches = facts.kernel.switches
    if mode.za:
        return None if mode.finalized else sve.VECTORS_NOT_FINALIZED
    if not mode.finalized and not switches.za_disabled_before_finalize:
        return sve.VECTORS_NOT_FINALIZED
    return ZA_DISABLED._replace(errno=getattr(errno, switches.za_disabled_errno))


def _za_vq(facts: Facts, mode: Mode) -> int:
    """The vector length in quadwords from which the kernel derives the number and size of ZA's rows."""
    return mode.sme_vq - facts.kernel.switches.za_vq_one_short


def _za_row(facts: Facts, id: int, n: int, valid_bytes: int, listed: bool, closed: Refusal | None) -> Row:
    """Row n of ZA; an access transfers ``valid_bytes``."""
    switches = facts.kernel.switches
    place = state.ZA + n % switches.za_row_alias_rows % state.ZA_ROWS * state.Z_BYTES
    getter = _copy_in if switches.za_get_writes and closed is None else None
    return Row(
        id, state.Z_BYTES, place, valid_bytes, listed=listed, get=closed, set=closed, partial=True, getter=getter
    )


def _copy_in(vcpu: Owner, row: Row, buffer: Buffer) -> Refusal | None:
    """KVM_GET_ONE_REG of a kernel that copies from userspace instead of to it: the register takes the buffer."""
    data = buffer.take(row.valid_bytes)
    if len(data) < row.valid_bytes:
        return FAULT
    vcpu.store(row, data)
    return None


def _rows(facts: Facts, mode: Mode) -> Iterator[Row]:
    if not mode.sme:
        return
    switches = facts.kernel.switches
    vls_row = vls.row(mode, vls.SME_ID)
    vls_row.listed = switches.reg_list_sme
    yield vls_row
    closed = _closed(facts, mode)
    listed = switches.reg_list_sme and (mode.za or not switches.reg_list_follows_svcr)
    length = _za_vq(facts, mode) * 16
    for n, id in enumerate(ZA_IDS[:length]):
        yield _za_row(facts, id, n, length, listed, closed)
    if "sme2" in mode.exposed and switches.zt0_accessible:
        yield Row(
            ZT0_ID, state.ZT_BYTES, state.ZT0, state.ZT_BYTES, listed=listed, get=closed, set=closed, partial=True
        )


def _refuse(map: RegisterMap, id: int) -> Row:
    facts, mode = map.facts, map.mode
    switches = facts.kernel.switches
    if id == vls.SME_ID:
        return refuse(id, NO_SME)
    if id == ZT0_ID and switches.zt0_accessible:
        return refuse(id, NO_SME2 if mode.sme else NO_SME)
    # The kernel's bound is the last row's number truncated to the ID's field: without rows (-1) every number passes.
    last = (_za_vq(facts, mode) * 16 - 1) % switches.za_id_rows
    row, slice = divmod(id - ZA_IDS[0], uapi.KVM_ARM64_SVE_MAX_SLICES)
    if not 0 <= row <= last:
        return refuse(id, BAD_SME_ID)
    if not mode.sme:
        return refuse(id, NO_SME)
    if slice:
        return refuse(id, sve.NO_SLICE)
    return _za_row(facts, id, row, 0, False, _closed(facts, mode))


def set_svcr(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Write SVCR: a change of SM resets V, Z, P, FFR, FPSR and FPMR; ZA and ZT0 are zero whenever ZA becomes 1.

    ZA is not accessible while SVCR.ZA = 0, so it is zeroed when ZA becomes 0: that is when its value is lost.
    """
    value = int.from_bytes(data, "little")
    if value & ~(SVCR_SM | SVCR_ZA):
        return BAD_SVCR
    if not vcpu.mode.finalized and not vcpu.system.kernel.switches.svcr_before_finalize:
        return sve.VECTORS_NOT_FINALIZED
    sm, za = bool(value & SVCR_SM), bool(value & SVCR_ZA)
    effects = Effects()
    if za and not vcpu.mode.za:
        warn_of_overflow(vcpu)
    if vcpu.mode.za and not za:
        vcpu.wipe(effects, state.ZA, state.ZT0 + state.ZT_BYTES, ZA_PLACES)
    if sm != vcpu.mode.sm:
        vcpu.wipe(effects, state.V, state.V + 32 * state.V_BYTES, core.V_PLACES)
        vcpu.wipe(effects, state.Z, state.FFR + state.P_BYTES, sve.PLACES)
        vcpu.overwrite(effects, core.FPSR_ID, state.FPSR, FPSR_RESET)
        vcpu.overwrite(effects, FPMR_ID, vcpu.system.sysreg_offset(FPMR_ID), FPMR_RESET)
    vcpu.store(row, data)
    vcpu.remap(sm=sm, za=za)
    return effects


def warn_of_overflow(vcpu: Owner) -> None:
    """Warn where a real kernel would now write ZT0 beyond the memory that FINALIZE gave the vCPU."""
    if vcpu.mode.finalized and "sme2" in vcpu.mode.exposed and not vcpu.zt0_room:
        vcpu.warn(OVERFLOW)


def get_smprimap(vcpu: Owner, row: Row, _buffer: Buffer) -> bytes:
    """SMPRIMAP_EL2: zero, or the value of SMCR_EL2 on a kernel that mixes them up."""
    if not vcpu.system.kernel.switches.smprimap_reads_smcr:
        return bytes(row.size_bytes)
    start = vcpu.system.sysreg_offset(SMCR_EL2_ID)
    return bytes(vcpu.memory[start : start + row.size_bytes])


FAMILY = Family(
    "sme",
    (uapi.KVM_REG_ARM64_SME,),
    lambda mode: (mode.sme, mode.finalized, mode.sme_vq, mode.za, "sme2" in mode.exposed),
    _rows,
    _refuse,
)
