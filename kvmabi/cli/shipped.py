# SPDX-License-Identifier: MIT
"""The headers and examples that come with kvmabi: inside an installed package, at the top of a checkout."""

from __future__ import annotations

from pathlib import Path

from kvmabi.errors import UsageError
from kvmabi.profiles import Kernel

PACKAGE = Path(__file__).resolve().parents[1]


NUMBERS = {"KVM_ARM_VCPU_SME": ("sme", "bit"), "KVM_CAP_ARM_SME": ("sme", "capability")}
"""The numbers that the headers take from the command line, because kernels differ: a feature and which one of it."""


def flags(kernel: Kernel | None = None) -> list[str]:
    """Returns the C compiler's flags for the headers, with the numbers of a kernel.

    >>> from kvmabi.profiles import load_kernel
    >>> flags(load_kernel("sme-forecast"))[1:]
    ['-DKVM_ARM_VCPU_SME=10', '-DKVM_CAP_ARM_SME=252']
    """
    given = [f"-I{folder('include')}"]
    for macro, (feature, field) in NUMBERS.items():
        if kernel is not None and feature in kernel.features:
            given.append(f"-D{macro}={getattr(kernel.features[feature], field)}")
    return given


def folder(name: str) -> Path:
    """Returns the folder ``name`` ("include", "vmm_examples")."""
    for place in (PACKAGE / name, PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise UsageError(f"this installation of kvmabi has no {name}: install it again")
