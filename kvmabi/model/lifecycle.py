# SPDX-License-Identifier: MIT
"""KVM_ARM_VCPU_INIT, KVM_ARM_VCPU_FINALIZE and the reset that INIT does."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvmabi import regid, uapi
from kvmabi.model import state, vls
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Refusal
from kvmabi.model.vcpu import NOT_INITIALIZED, refusal_error

if TYPE_CHECKING:
    from kvmabi.model.vcpu import Vcpu

MPIDR_ID = regid.parse("mpidr_el1")
MPIDR_RES1 = 1 << 31

# Both of a pair or neither; the second only with the first.
PAIRS = (("ptrauth_address", "ptrauth_generic"),)
DEPENDENT = (("pmu_v3_strict", "pmu_v3"),)

BAD_TARGET = Refusal(errno.EINVAL, "no such target", "take the one that KVM_ARM_PREFERRED_TARGET tells")
OTHER_FEATURES = Refusal(
    errno.EINVAL, "a vCPU keeps the target and features of its first INIT, and all vCPUs of a VM share theirs"
)
NOT_A_VECTOR_VCPU = Refusal(errno.EINVAL, "the vCPU has neither SVE nor SME, so there is nothing to finalise")
BAD_FINALIZE = Refusal(errno.EINVAL, "the only feature to finalise is KVM_ARM_VCPU_VEC (4)")
FINALIZED_ALREADY = Refusal(errno.EPERM, "the vCPU is finalised already")


def init(vcpu: Vcpu, target: int, feature_words: Sequence[int]) -> None:
    """KVM_ARM_VCPU_INIT. Errors: ENOENT for unknown feature bits, EINVAL for what cannot be given or changed."""
    if target != vcpu.system.kernel.target:
        raise refusal_error(BAD_TARGET)
    features = _features(vcpu, feature_words)
    lasting = features - {"power_off"}
    for fixed in (vcpu.features, vcpu.vm.features):
        if fixed is not None and fixed != lasting:
            raise refusal_error(OTHER_FEATURES)
    vcpu.features = vcpu.vm.features = lasting
    reset(vcpu)


def _features(vcpu: Vcpu, words: Sequence[int]) -> frozenset[str]:
    system = vcpu.system
    names = {feature.bit: name for name, feature in system.kernel.features.items()}
    bits = {32 * n + bit for n, word in enumerate(words) for bit in range(32) if word >> bit & 1}
    unknown = sorted(bit for bit in bits if bit >= system.kernel.max_features)
    if unknown:
        raise refusal_error(Refusal(errno.ENOENT, f"this kernel knows no feature bit {unknown[0]}"))
    features = frozenset(names.get(bit, f"bit {bit}") for bit in bits)
    missing = sorted(features - system.features)
    if missing:
        raise refusal_error(Refusal(errno.EINVAL, f"this host has no {', '.join(missing)}"))
    for one, other in PAIRS:
        if (one in features) != (other in features):
            raise refusal_error(Refusal(errno.EINVAL, f"{one} and {other} go together"))
    for one, other in DEPENDENT:
        if one in features and other not in features:
            raise refusal_error(Refusal(errno.EINVAL, f"{one} needs {other}"))
    return features


def reset(vcpu: Vcpu) -> None:
    """Put every register to its reset value; vector lengths stay once the vCPU is finalised, the VM's registers always."""
    features = vcpu.features or frozenset()
    system = vcpu.system
    old = vcpu.mode
    memory = vcpu.file.memory
    memory[:] = system.reset_image(features)
    for offset, data in vcpu.vm.shared.items():
        memory[offset : offset + len(data)] = data
    start = system.sysreg_offset(MPIDR_ID)
    memory[start : start + 8] = _mpidr(vcpu.index).to_bytes(8, "little")
    sve_vq = sme_vq = 0
    if "sve" in features:
        sve_vq = old.sve_vq if old.finalized else max(system.sve_vqs)
        memory[state.SVE_VLS : state.SVE_VLS + state.VLS_BYTES] = vls.encode(system.sve_vqs, sve_vq)
    if "sme" in features:
        sme_vq = old.sme_vq if old.finalized else max(system.sme_vqs)
        memory[state.SME_VLS : state.SME_VLS + state.VLS_BYTES] = vls.encode(system.sme_vqs, sme_vq)
    vcpu.mode = Mode(features, old.finalized, sve_vq, sme_vq, False, False, system.shown(memory))
    vcpu.remap()


def _mpidr(index: int) -> int:
    """MPIDR_EL1: the vCPU's number spread over the affinity levels, 16 vCPUs to a cluster."""
    return MPIDR_RES1 | index & 0xF | (index >> 4 & 0xFF) << 8 | (index >> 12 & 0xFF) << 16


def finalize(vcpu: Vcpu, feature: int) -> None:
    """KVM_ARM_VCPU_FINALIZE: fixes both vector lengths. Errors: ENOEXEC, EINVAL, EPERM the second time."""
    if vcpu.map is None:
        raise refusal_error(NOT_INITIALIZED)
    if feature != uapi.KVM_ARM_VCPU_VEC:
        raise refusal_error(BAD_FINALIZE)
    if not vcpu.mode.vector:
        raise refusal_error(NOT_A_VECTOR_VCPU)
    if vcpu.mode.finalized:
        raise refusal_error(FINALIZED_ALREADY)
    vcpu.remap(finalized=True)
