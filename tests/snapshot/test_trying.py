# SPDX-License-Identifier: MIT
"""Restores on the model: what is refused, and what a refusal leaves for the registers after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from kvmabi import regid
from kvmabi.model.plan import SVCR
from kvmabi.model.system import System
from kvmabi.model.vm import Vm
from kvmabi.profiles import load_host, load_kernel
from kvmabi.snapshot import trying
from kvmabi.snapshot.lengths import SME_VLS, vls_of

FEATURES = {"sve", "sme", "psci_0_2"}
ZA = regid.parse("za.h[0]")


@pytest.fixture
def vm() -> Iterator[Vm]:
    host = load_host("sme-demo")
    with closing(Vm(System(host, load_kernel(host.kernel)), 1)) as vm:
        yield vm


def test_reserved_bits_of_svcr_are_the_only_refusal(vm: Vm) -> None:
    """The mode that was meant is set, so ZA is judged in it; without svcr ZA does not exist."""
    vcpu = trying.initialized(vm, FEATURES)
    answers = trying.restore(vcpu, {ZA: b"\x07" * 256, SVCR: bytes([6, *bytes(7)])})
    assert list(answers) == [SVCR]
    assert answers[SVCR].of_value
    assert (vcpu.mode.sm, vcpu.mode.za) == (False, True)
    without = trying.restore(trying.initialized(vm, FEATURES, 1), {ZA: bytes(256)})
    assert not without[ZA].of_value


def test_the_plan_puts_finalize_after_the_lengths(vm: Vm) -> None:
    """Whatever the order of the values; also if nothing is written after it."""
    vcpu = trying.initialized(vm, FEATURES)
    assert trying.restore(vcpu, {SVCR: bytes([3, *bytes(7)]), SME_VLS: vls_of((256, 512))}) == {}
    assert (vcpu.mode.finalized, vcpu.mode.sme_vq) == (True, 4)
    other = trying.initialized(vm, FEATURES, 1)
    trying.restore(other, {})
    assert other.mode.finalized


def test_vm_wide_registers_are_the_first_vcpus(vm: Vm) -> None:
    """The other vCPUs do not write them, so they cannot be refused there."""
    wrong = {regid.parse("midr_el1"): bytes(8), regid.parse("id_aa64pfr0_el1"): b"\xff" * 8}
    first = trying.restore(trying.initialized(vm, FEATURES), wrong)
    other = trying.restore(trying.initialized(vm, FEATURES, 1), wrong, first_vcpu=False)
    assert first.keys() == wrong.keys()
    assert regid.parse("id_aa64pfr0_el1") not in other


def test_a_value_of_another_size_is_not_written(vm: Vm) -> None:
    """The model takes a payload as it is: a short one would be a partial copy."""
    answer = trying.write(trying.initialized(vm, FEATURES), regid.parse("x0"), bytes(4))
    assert answer is not None
    assert answer.text == "the ID asks for 8 bytes, and 4 are stored"
