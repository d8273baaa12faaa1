# SPDX-License-Identifier: MIT
"""What a host offers is found out by asking: features, lengths, traits and capabilities."""

from __future__ import annotations

from collections.abc import Callable

from kvmabi import uapi
from kvmabi.profiles import load_host
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.probe import probe
from steps.conftest import Answer, Liar


def test_the_demo_host(model: ModelBackend) -> None:
    """The offer of a model is what its host profile says."""
    host = load_host("sme-demo")
    host_features = model.describe()
    assert [vq * 128 for vq in host_features.sve_vqs] == list(host.sve_vector_bits)
    assert [vq * 128 for vq in host_features.sme_vqs] == list(host.sme_vector_bits)
    assert {"sve", "sme", "psci_0_2", "ptrauth_address", "ptrauth_generic"} <= host_features.features
    assert {"sme2", "fa64", "el0_32bit", "writable_masks"} <= host_features.traits
    assert "has_el2" not in host_features.features
    assert host_features.target == 5
    assert host_features.capabilities_vm[uapi.KVM_CAP_ARM_SVE] == 1
    assert "SVE" in str(host_features)
    assert "fa64" in str(host_features)


def test_a_host_without(liar: Callable[[Answer], Liar]) -> None:
    """Where INIT takes nothing but the bare vCPU, nothing else is offered."""
    backend = liar(lambda step, answer: "EINVAL" if step.startswith("I ") and not step.endswith(" 0") else answer)
    host_features = probe(backend)
    assert host_features.features == frozenset()
    assert (host_features.sve_vqs, host_features.sme_vqs) == ((), ())
    assert not host_features.traits & {"sme2", "fa64"}
