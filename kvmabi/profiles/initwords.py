# SPDX-License-Identifier: MIT
"""The features of KVM_ARM_VCPU_INIT: names to bits to the words of struct kvm_vcpu_init."""

from __future__ import annotations

from collections.abc import Iterable

from kvmabi import uapi
from kvmabi.errors import UsageError
from kvmabi.profiles import features as feature_rules
from kvmabi.profiles.kernel import Kernel

WORD = (1 << 32) - 1
FEATURE_WORDS = uapi.ffi.sizeof("struct kvm_vcpu_init") // 4 - 1


def feature_bits(kernel: Kernel, features: Iterable[str]) -> int:
    """The bits of features[] in struct kvm_vcpu_init, 32 a word, for features by name.

    Names are a kernel profile's, or their short forms. Raises UsageError for a name that the kernel does not know.
    """
    bits = 0
    for name in feature_rules.expand(features):
        feature = kernel.features.get(name)
        if feature is None:
            names = ", ".join(sorted({*kernel.features, *feature_rules.aliases()}))
            raise UsageError(f"kernel {kernel.name} has no vCPU feature {name!r}: take some of {names}")
        bits |= 1 << feature.bit
    return bits


def feature_words(bits: int) -> list[int]:
    """features[] of struct kvm_vcpu_init for its bits."""
    return [bits >> 32 * n & WORD for n in range(FEATURE_WORDS)]
