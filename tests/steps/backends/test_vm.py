# SPDX-License-Identifier: MIT
"""A real kernel in QEMU: the suite passes, and the kernel's own answers are the model's. Needs KVMABI_KERNEL_IMAGE."""

from __future__ import annotations

import pytest

from kvmabi.conformance import load, run, select
from kvmabi.errors import UsageError
from kvmabi.steps.backends.vm import VmBackend


@pytest.mark.parametrize("cpu", ["max,pauth-impdef=on,sve-max-vq=4", "neoverse-n1", "cortex-a57"])
def test_the_suite_passes(kernel_image: str, cpu: str) -> None:
    """Every case that the kernel on this CPU can run agrees with it."""
    with VmBackend(kernel_image, cpu=cpu) as backend:
        outcomes = run(backend, load())
    assert {outcome.case.name: outcome.differences for outcome in outcomes if outcome.differences} == {}


def test_repeated_lists_are_whole(kernel_image: str) -> None:
    """A list that the executor abbreviates is the same one when it arrives."""
    with VmBackend(kernel_image) as backend:
        *_, one, other = backend.answers(["N 1", "I 0 5 0", "L 0 4096", "L 0 4096"])
    assert one == other
    assert len(one.split()) == int(one.split()[1]) + 2


def test_missing_kvm_is_reported(kernel_image: str) -> None:
    """A machine whose kernel has no KVM is refused in one line."""
    with pytest.raises(UsageError, match="the kernel booted, but /dev/kvm"):
        VmBackend(kernel_image, arguments="kvm-arm.mode=none")


def test_selected_cases(kernel_image: str) -> None:
    """One case is run alone, too."""
    with VmBackend(kernel_image, cpu="cortex-a57") as backend:
        (outcome,) = run(backend, select(load(), "life.before-init"))
    assert outcome.status == "passed"
