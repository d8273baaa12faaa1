# SPDX-License-Identifier: MIT
"""What a host offers is found out by asking: features, lengths, traits and capabilities."""

from __future__ import annotations

from collections.abc import Callable

from conformance.conftest import Answer, Liar
from kvmabi import uapi
from kvmabi.conformance.backends.model import ModelBackend
from kvmabi.conformance.offer import probe
from kvmabi.profiles import load_host


def test_the_demo_host(model: ModelBackend) -> None:
    """The offer of a model is what its host profile says."""
    host = load_host("sme-demo")
    offer = model.describe()
    assert [vq * 128 for vq in offer.sve_vqs] == list(host.sve_vector_bits)
    assert [vq * 128 for vq in offer.sme_vqs] == list(host.sme_vector_bits)
    assert {"sve", "sme", "psci_0_2", "ptrauth_address", "ptrauth_generic"} <= offer.features
    assert {"sme2", "fa64", "el0_32bit", "writable_masks"} <= offer.traits
    assert "has_el2" not in offer.features
    assert offer.target == 5
    assert offer.capabilities_vm[uapi.KVM_CAP_ARM_SVE] == 1
    assert "SVE" in str(offer)
    assert "fa64" in str(offer)


def test_a_host_without(liar: Callable[[Answer], Liar]) -> None:
    """Where INIT takes nothing but the bare vCPU, nothing else is offered."""
    backend = liar(lambda step, told: "EINVAL" if step.startswith("I ") and not step.endswith(" 0") else told)
    offer = probe(backend)
    assert offer.features == frozenset()
    assert (offer.sve_vqs, offer.sme_vqs) == ((), ())
    assert not offer.traits & {"sme2", "fa64"}
