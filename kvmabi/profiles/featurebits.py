# SPDX-License-Identifier: MIT
"""What a bit of KVM_ARM_VCPU_INIT means on other kernels: a number that moved between kernels is easily mistaken.

Linux 7.3 gave bit 9 to PMU_V3_STRICT, which is SME's on kernels with the SME series.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from kvmabi import regid
from kvmabi.profiles import sysregs
from kvmabi.profiles.kernel import Kernel, kernel_names, load_kernel


@cache
def meanings(bit: int) -> dict[str, tuple[str, ...]]:
    """The features that have a bit on some built-in kernel, and on which.

    >>> {feature: kernels[0] for feature, kernels in meanings(9).items()}
    {'pmu_v3_strict': 'linux-7.3', 'sme': 'sme-v10'}
    """
    found: dict[str, list[str]] = {}
    for name in kernel_names():
        for feature, (number, _) in load_kernel(name).features.items():
            if number == bit:
                found.setdefault(feature, []).append(name)
    return {feature: tuple(kernels) for feature, kernels in found.items()}


def here(kernel: Kernel, bit: int) -> str:
    """The feature that a bit means on a kernel, "" if that knows none."""
    return next((name for name, feature in kernel.features.items() if feature.bit == bit), "")


def elsewhere(kernel: Kernel, bit: int) -> dict[str, tuple[str, ...]]:
    """The other features that a bit means on built-in kernels, and on which."""
    own = here(kernel, bit)
    return {feature: kernels for feature, kernels in meanings(bit).items() if feature != own}


def in_words(kernel: Kernel, bit: int) -> str:
    """What a bit means elsewhere, and where this kernel has that; "" if it means nothing else.

    >>> in_words(load_kernel("linux-7.3"), 9)
    'bit 9 is SME on sme-v10, sme-v11, sme-v12 and sme-v9; linux-7.3 has no SME'
    >>> in_words(load_kernel("sme-v12"), 10)
    'bit 10 is SME on sme-forecast (a forecast); sme-v12 has SME at bit 9'
    """
    parts = []
    for feature, kernels in elsewhere(kernel, bit).items():
        *most, last = (f"{name} (a forecast)" if load_kernel(name).forecast else name for name in kernels)
        where = f"{', '.join(most)} and {last}" if most else last
        own = kernel.features.get(feature)
        parts.append(
            f"bit {bit} is {feature.upper()} on {where}; {kernel.name} has "
            + (f"no {feature.upper()}" if own is None else f"{feature.upper()} at bit {own.bit}")
        )
    return "; ".join(parts)


def hint(kernel: Kernel, bits: Iterable[int]) -> str:
    """The same for several bits, for an INIT that fails."""
    return "; ".join(filter(None, (in_words(kernel, bit) for bit in sorted(bits))))


@cache
def belongs_to(id: int, feature: str) -> bool:
    """Whether only vCPUs with a feature can have a register.

    >>> [belongs_to(regid.parse(name), "sme") for name in ("svcr", "za.h[3]", "z0")]
    [True, True, False]
    """
    register = sysregs.by_id().get(id)
    return feature in register.needs if register is not None else regid.decode(id).family == feature
