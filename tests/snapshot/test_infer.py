# SPDX-License-Identifier: MIT
"""Features follow from a list of registers: exactly those that leave a register behind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kvmabi
from kvmabi import regid
from kvmabi.snapshot import infer
from kvmabi.snapshot.saving import save
from snapshot.states import machines

HIDDEN = {"power_off", "pmu_v3_strict"}
"""Features that neither a register nor a value shows."""


@pytest.mark.slow
@pytest.mark.parametrize("host", kvmabi.host_names())
@settings(max_examples=4, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(data=st.data())
def test_features_of_a_save(host: str, data: st.DataObject) -> None:
    """What INIT got is what the list shows, with every set of features of every host and kernel."""
    machine = data.draw(machines(host))
    with machine.open() as kvm:
        registers = save(machine.create(kvm)).vcpus[0].registers
    assert infer.features_of(registers) == machine.features - HIDDEN


def test_streaming_vectors_show_no_sve() -> None:
    """Z in streaming mode exists without SVE."""
    z0, svcr = regid.parse("z0"), regid.parse("svcr")
    assert infer.features_of({z0: bytes(256), svcr: bytes([1, *bytes(7)])}) == {"sme"}
    assert infer.features_of({z0: bytes(256), svcr: bytes(8)}) == {"sve", "sme"}


def test_psci_follows_from_its_version() -> None:
    """0.1 is what a vCPU without the feature has."""
    version = regid.parse("psci_version")
    assert infer.features_of({version: bytes([1, *bytes(7)])}) == frozenset()
    assert infer.features_of({version: bytes([2, *bytes(7)])}) == {"psci_0_2"}


def test_features_that_values_show() -> None:
    """EL1 in AArch32 by pstate, E2H0 by the ID register, PSCI by its version."""
    assert infer.features_of({regid.parse("pstate"): (0x1D3).to_bytes(8, "little")}) == {"el1_32bit"}
    registers = {regid.parse("hcr_el2"): bytes(8), regid.parse("psci_version"): (2).to_bytes(8, "little")}
    assert infer.features_of(registers) == {"has_el2", "psci_0_2"}
    for value, feature in ((0, {"has_el2_e2h0"}), (0xE << 24, set())):
        registers[regid.parse("id_aa64mmfr4_el1")] = value.to_bytes(8, "little")
        assert infer.features_of(registers) == {"has_el2", "psci_0_2"} | feature


def test_a_mode_that_is_not_known_shows_nothing() -> None:
    """A list of IDs has no value of svcr: Z may be there in streaming mode only."""
    z0, svcr = regid.parse("z0"), regid.parse("svcr")
    assert infer.features_of({z0: b"", svcr: b""}) == {"sme"}
    assert infer.features_of({z0: b""}) == {"sve"}


def test_signs_name_the_registers() -> None:
    """Each feature has the registers that show it, and every sign has words."""
    apia = regid.parse("apiakeylo_el1")
    assert infer.signs({apia: bytes(8)}) == {"ptrauth_address": (apia,)}
    assert all(sign.what for sign in infer.SIGNS)
