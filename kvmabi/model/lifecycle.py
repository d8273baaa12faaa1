# SPDX-License-Identifier: MIT
"""KVM_ARM_VCPU_INIT, KVM_ARM_VCPU_FINALIZE and the reset that INIT does."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.model import core, pmu, sme, state, timerlines, vls
from kvmabi.model import reset as images
from kvmabi.model.affinity import MPIDR_ID
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.vcpu import VCPU_NOT_INITIALIZED, Vcpu
from kvmabi.profiles import featurebits
from kvmabi.profiles import features as feature_rules

MPIDR_RES1 = 1 << 31

STUCK_SVE = frozenset({"sve"})

BAD_TARGET = Refusal(errno.EINVAL, "no such target", "take the one that KVM_ARM_PREFERRED_TARGET returns")
OTHER_FEATURES = Refusal(
    errno.EINVAL, "a vCPU keeps the target and features of its first INIT, and all vCPUs of a VM share theirs"
)
NOT_A_VECTOR_VCPU = Refusal(errno.EINVAL, "the vCPU has neither SVE nor SME, so there is nothing to finalise")
BAD_FINALIZE = Refusal(errno.EINVAL, "the only feature to finalise is KVM_ARM_VCPU_VEC (4)")
FINALIZED_ALREADY = Refusal(errno.EPERM, "the vCPU is finalised already")


def init(vcpu: Vcpu, target: int, feature_words: Sequence[int]) -> None:
    """KVM_ARM_VCPU_INIT. Errors: ENOENT for unknown feature bits, EINVAL for what cannot be given or changed."""
    system, switches = vcpu.system, vcpu.system.kernel.switches
    if target not in system.targets:
        raise BAD_TARGET.error()
    bits = {32 * n + bit for n, word in enumerate(feature_words) if word for bit in range(32) if word >> bit & 1}
    names = {feature.bit: name for name, feature in system.kernel.features.items()}
    asked = frozenset(names.get(bit, f"bit {bit}") for bit in bits if bit < system.kernel.max_features)
    features = asked if switches.power_off_lasts else feature_rules.lasting(asked)
    again = vcpu.features is not None
    if again and switches.init_compares_first and features != vcpu.features:
        raise OTHER_FEATURES.error()
    if max(bits, default=0) >= system.kernel.max_features:
        if switches.failed_init_keeps_features and not again:
            vcpu.leftover |= features
        unknown = {bit for bit in bits if bit >= system.kernel.max_features}
        hint = featurebits.hint(system.kernel, unknown)
        raise Refusal(errno.ENOENT, f"this kernel knows no feature bit {max(bits)}", hint).error()
    features |= vcpu.leftover
    try:
        _check(vcpu, features)
    except KvmError:
        _leave_behind(vcpu, features)
        raise
    fixed = [vcpu.features, vcpu.vm.features if switches.vcpus_share_features else None]
    if any(other is not None and other != features for other in fixed):
        raise OTHER_FEATURES.error()
    if again:
        sme.warn_of_overflow(vcpu)
    if vcpu.vm.features is None:
        vcpu.vm.pmu_counters = pmu.first_counters(vcpu.system, features)
    vcpu.features = vcpu.vm.features = features
    vcpu.target = target
    vcpu.vm.el1_32bit = "el1_32bit" in features
    reset(vcpu)
    timerlines.reset(vcpu)


def _check(vcpu: Vcpu, features: frozenset[str]) -> None:
    """Fail with EINVAL for features that the host lacks or that exclude one another."""
    missing = sorted(features - vcpu.system.features)
    if missing:
        raise Refusal(errno.EINVAL, f"this host has no {', '.join(missing)}", _hint(vcpu, missing)).error()
    if conflict := feature_rules.conflict(features):
        raise Refusal(errno.EINVAL, conflict, _hint(vcpu, features)).error()
    if vcpu.vm.el1_32bit not in (None, "el1_32bit" in features):
        raise OTHER_FEATURES.error()


def _hint(vcpu: Vcpu, features: Iterable[str]) -> str:
    """What the bits of features mean on other kernels: the VMM may have meant that."""
    kernel = vcpu.system.kernel
    return featurebits.hint(kernel, (kernel.features[name].bit for name in features if name in kernel.features))


def _leave_behind(vcpu: Vcpu, features: frozenset[str]) -> None:
    """What an INIT that got as far as the reset has done before it failed, on a kernel that does not undo it."""
    if not vcpu.system.kernel.switches.failed_init_keeps_features or vcpu.features is not None:
        return
    vcpu.leftover = frozenset()
    wide = "el1_32bit" in features
    if vcpu.vm.el1_32bit is None and not (wide and "el1_32bit" not in vcpu.system.features):
        vcpu.vm.el1_32bit = wide
    if vcpu.vm.el1_32bit == wide and "sve" in features & vcpu.system.features:
        vcpu.stuck_sve = True


def reset(vcpu: Vcpu) -> None:
    """Reset the registers; vector lengths are preserved once the vCPU is finalised, VM-wide registers always."""
    system = vcpu.system
    features = (vcpu.features or frozenset()) | (STUCK_SVE if vcpu.stuck_sve else frozenset())
    old = vcpu.mode
    memory = vcpu.memory
    preserved = _preserved(vcpu)
    vcpu.reset_image = images.image(system, features)
    image = images.image(system, features, _events(vcpu))
    view = memoryview(image)
    memory[: state.ZA] = view[: state.ZA]
    memory[state.ZT0 :] = view[state.ZT0 :]
    if old.za:  # otherwise ZA, most of the register file, is zero already
        vcpu.file.zero(state.ZA, state.ZT0)
    for offset, data in (preserved | vcpu.vm.shared).items():
        memory[offset : offset + len(data)] = data
    sve_vq = sme_vq = 0
    if "sve" in features:
        sve_vq = old.sve_vq if old.finalized else max(system.sve_vqs)
        memory[state.SVE_VLS : state.SVE_VLS + state.VLS_BYTES] = vls.encode(system.sve_vqs, sve_vq)
    if "sme" in features:
        sme_vq = old.sme_vq if old.finalized else max(system.sme_vqs)
        memory[state.SME_VLS : state.SME_VLS + state.VLS_BYTES] = vls.encode(system.sme_vqs, sme_vq)
    vcpu.mode = Mode(
        features, old.finalized, sve_vq, sme_vq, False, False, system.exposed(memory), core.narrowed(memory)
    )
    vcpu.remap()
    vcpu.generation += 1


def _events(vcpu: Vcpu) -> int | None:
    """PMEVTYPER<n>_EL0's bits, if userspace has set an ID register that decides about them."""
    system, shared = vcpu.system, vcpu.vm.shared
    places = [system.sysreg_offset(id) for id in (pmu.PFR0_ID, pmu.DFR0_ID)]
    if shared.keys().isdisjoint(places):
        return None
    fresh = images.image(system, vcpu.features or frozenset())
    return pmu.event_mask(*(int.from_bytes(shared.get(at) or fresh[at : at + 8], "little") for at in places))


def _preserved(vcpu: Vcpu) -> dict[int, bytes]:
    """What INIT preserves, by place in the register file, and MPIDR_EL1, which is each vCPU's own."""
    system, memory = vcpu.system, vcpu.memory
    preserved = {system.sysreg_offset(MPIDR_ID): _mpidr(vcpu.index).to_bytes(8, "little")}
    if vcpu.map is None:
        return preserved
    places = [system.sysreg_offset(reg.id) for reg in system.sysregs if reg.kept]
    preserved |= {start: memory[start : start + 8] for start in (*places, *state.BANKED_EL1)}
    if system.kernel.switches.ccsidr_made_up:
        preserved[state.CCSIDR] = memory[state.CCSIDR : state.CCSIDR + state.CCSIDR_SLOTS * 4]
    return preserved


def _mpidr(index: int) -> int:
    """MPIDR_EL1: the vCPU's number spread over the affinity levels, 16 vCPUs to a cluster."""
    return MPIDR_RES1 | index & 0xF | (index >> 4 & 0xFF) << 8 | (index >> 12 & 0xFF) << 16


def finalize(vcpu: Vcpu, feature: int) -> None:
    """KVM_ARM_VCPU_FINALIZE: fixes both vector lengths. Errors: ENOEXEC, EINVAL, EPERM the second time."""
    if vcpu.map is None:
        raise VCPU_NOT_INITIALIZED.error()
    if feature != uapi.KVM_ARM_VCPU_VEC:
        raise BAD_FINALIZE.error()
    if not vcpu.mode.vector:
        raise NOT_A_VECTOR_VCPU.error()
    if vcpu.mode.finalized:
        raise FINALIZED_ALREADY.error()
    vcpu.zt0_room = vcpu.system.kernel.switches.zt0_space == "host" or "sme2" in vcpu.mode.exposed
    vcpu.remap(finalized=True)
    vcpu.generation += 1
