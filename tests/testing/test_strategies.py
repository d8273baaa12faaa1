# SPDX-License-Identifier: MIT
"""The strategies draw what they say, all of it fits the model, and what fails shrinks to something simple."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from vmms import RUNNING

import kvmabi
from kvmabi import Host, Kernel, regid
from kvmabi.device import open_system
from kvmabi.events import EventLog
from kvmabi.model.plan import in_order
from kvmabi.steps import grammar
from kvmabi.steps.doer import Doer
from kvmabi.steps.modelport import ModelPort
from kvmabi.testing import strategies
from kvmabi.testing.strategies import RandomVmm, VcpuState

FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def _longest(host: Host) -> tuple[int, int]:
    return max(host.sve_vector_bits, default=0), max(host.sme_vector_bits, default=0)


SHAPES: dict[str, Callable[[Host], bool]] = {
    "neither": lambda host: not host.sve_vector_bits and not host.sme_vector_bits,
    "apart": lambda host: set(host.sve_vector_bits).isdisjoint(host.sme_vector_bits) and len(host.sme_vector_bits) > 1,
    "longest": lambda host: (
        max(host.sve_vector_bits, default=0) == 2048 and max(host.sme_vector_bits, default=0) == 128
    ),
    "only sme": lambda host: bool(host.sme_vector_bits) and not host.sve_vector_bits,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_hosts_of_every_shape(shape: str) -> None:
    """Both sets are independent of one another, and each can be empty."""
    host = find(strategies.hosts(), SHAPES[shape], settings=settings(max_examples=5000))
    assert host.kernel == "sme-v12"
    assert all(bits in strategies.LENGTHS_BITS for bits in (*host.sve_vector_bits, *host.sme_vector_bits))


def test_sets_of_a_hosts_vector_lengths_can_be_chosen() -> None:
    """``sve`` and ``sme`` replace the strategies of the sets."""
    host = find(strategies.hosts(sve=st.just(()), sme=strategies.vector_lengths(min_size=3)), lambda _: True)
    assert (host.sve_vector_bits, host.sme_vector_bits) == ((), (128, 256, 512))
    assert host.name == "sme-demo-sme128-256-512"


@pytest.mark.slow
@FEW
@given(host=strategies.hosts(), kernel=strategies.kernels(), data=st.data())
def test_features_fit_host_and_kernel(host: Host, kernel: Kernel, data: st.DataObject) -> None:
    """INIT accepts every set that is drawn."""
    features = data.draw(strategies.features(host, kernel))
    with kvmabi.open(host=host, kernel=kernel, checked=False) as kvm:
        kvm.create_vm().create_vcpu(0).init(features)


@pytest.mark.slow
@FEW
@given(host=strategies.hosts(), data=st.data())
def test_states_are_restored_in_the_order_that_they_have(host: Host, data: st.DataObject) -> None:
    """Every write succeeds, and the vCPU then has the state, free-running counters aside."""
    state = data.draw(strategies.vcpu_states(host))
    with kvmabi.open(host=host) as kvm:
        vcpu = state.create(kvm.create_vm())
        there = {name: vcpu[name] for name in vcpu.names()}
        assert kvm.findings() == []
    assert {name for name in there if there[name] != state.registers[name]} <= RUNNING
    assert there.keys() == state.registers.keys()


@pytest.mark.slow
@pytest.mark.parametrize("mode", range(4))
def test_states_of_every_mode(mode: int) -> None:
    """SM and ZA; the simplest state of a mode holds zeroes."""

    def fits(state: VcpuState) -> bool:
        return state.mode == mode and "sme" in state.features and "sve" in state.features

    state = find(strategies.vcpu_states(), fits)
    assert int.from_bytes(state.registers["svcr"], "little") == mode
    assert ("za.h[0]" in state.registers) == (mode >= 2)
    ids = [regid.parse(name) for name in state.registers]
    assert ids == in_order(ids)
    assert not any(state.registers["z0"])


@FEW
@given(steps=strategies.ioctl_sequences())
def test_sequences_of_ioctls_are_steps(steps: list[str]) -> None:
    """The model does each, with an answer that begins with OK or an errno's name."""
    host = kvmabi.load_host("sme-demo")
    doer = Doer(ModelPort(open_system(host, kvmabi.load_kernel(host.kernel), EventLog(kept=0))))
    for step in steps:
        grammar.parse(step)
        assert doer.do(step).split()[0].isalnum()


@pytest.mark.slow
@FEW
@given(vmm=strategies.vmms())
def test_random_vmms_have_a_known_truth(vmm: RandomVmm) -> None:
    """A right one loses nothing; the repr is what plays one again."""
    kvm, scenario = vmm.play()
    with kvm:
        assert bool(scenario.truth or scenario.latent) == vmm.wrong
    assert repr(vmm) == f"RandomVmm(seed={vmm.seed}, wrong={vmm.wrong}, mistake=None)"


@pytest.mark.slow
def test_every_kind_of_step_is_drawn() -> None:
    """The strategies come from the grammar's table; sequences shrink to the step that matters."""
    for op in grammar.OPS:
        steps = find(
            strategies.ioctl_sequences(max_size=60),
            lambda drawn, letter=op.letter: any(step.startswith(letter) for step in drawn),  # type: ignore[misc]
            settings=settings(max_examples=2000),
        )
        assert len(steps) <= 4
