# SPDX-License-Identifier: MIT
"""The model against the small reference: both give the same answers to random sequences of ioctls on a vCPU."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvmabi import hexruns
from kvmabi.profiles import host_names, load_host
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.grammar import pattern
from second_opinion.reference import FFR, ROWS, SME_VLS, SVCR, SVE_VLS, ZT0, P, Reference, Z, size_bytes, vls

KERNELS = ("sme-v12", "sme-v11", "linux-7.2", "linux-7.3")
HOSTS = [name for name in host_names() if load_host(name).kernel in KERNELS and load_host(name).sve_vector_bits]
SETS = (("sve",), ("sme",), ("sve", "sme"))
ROW = st.sampled_from([0, 1, 15, 16, 17, 31, 32, 63, 64, 127, 128, 255]).map(ROWS.__getitem__)
REGISTER = st.one_of(st.sampled_from(Z), st.sampled_from(P), st.just(FFR), ROW, st.just(ZT0))
ANY = st.one_of(REGISTER, st.sampled_from([SVCR, SVE_VLS, SME_VLS]))
FEATURE_SETS = {
    host: [features for features in SETS if "sme" not in features or load_host(host).sme_vector_bits] for host in HOSTS
}
BACKENDS: dict[str, ModelBackend] = {}


def backend(host: str) -> ModelBackend:
    """One model for each host, for all examples."""
    if host not in BACKENDS:
        BACKENDS[host] = ModelBackend(host)
    return BACKENDS[host]


class Vcpu(RuleBasedStateMachine):
    """A vCPU of the model and its reference."""

    @initialize(data=st.data(), host=st.sampled_from(HOSTS))
    def begin(self, data: st.DataObject, host: str) -> None:
        features = data.draw(st.sampled_from(FEATURE_SETS[host]))
        self.model = backend(host)
        host_features = self.model.describe()
        self.init = (
            f"I 0 {host_features.target} {sum(1 << self.model.kernel.features[name].bit for name in features):x}"
        )
        self.reference = Reference(
            {SVE_VLS: set(host_features.sve_vqs), SME_VLS: set(host_features.sme_vqs)},
            "sve" in features,
            "sme" in features,
            "sme2" in host_features.traits,
            "fa64" in host_features.traits,
        )
        assert self.model.answers(["N 1", self.init]) == ["OK", "OK"]

    def ask(self, step: str) -> str:
        (answer,) = self.model.answers([step])
        return answer

    def check_set(self, id: int, data: bytes) -> None:
        expected = self.reference.set(id, data)
        assert self.ask(f"S 0 {id:x} {hexruns.compress(data)}") == expected

    @rule()
    def finalize(self) -> None:
        assert self.ask("F 0 4") == self.reference.finalize()

    @rule()
    def init_again(self) -> None:
        self.reference.init_again()
        assert self.ask(self.init) == "OK"

    @rule(value=st.sampled_from([0, 1, 2, 3, 0, 1, 2, 3, 4, 1 << 63]))
    def write_svcr(self, value: int) -> None:
        self.check_set(SVCR, value.to_bytes(8, "little"))

    @rule(id=st.sampled_from([SVE_VLS, SME_VLS]), most=st.integers(1, 16))
    def truncate_lengths(self, id: int, most: int) -> None:
        self.check_set(id, vls({vq for vq in self.reference.host[id] if vq <= most}))

    @rule(id=st.sampled_from([SVE_VLS, SME_VLS]), vqs=st.sets(st.integers(1, 17)))
    def any_lengths(self, id: int, vqs: set[int]) -> None:
        self.check_set(id, vls(vqs))

    @rule(id=REGISTER, seed=st.integers(0, 255))
    def write(self, id: int, seed: int) -> None:
        self.check_set(id, pattern(seed, size_bytes(id)))

    @rule(id=ANY)
    def read(self, id: int) -> None:
        expected, data = self.reference.get(id)
        assert self.ask(f"G 0 {id:x}") == (f"OK {hexruns.compress(data)}" if expected == "OK" else expected)

    @precondition(lambda self: self.reference.finalized)
    @rule()
    def everything_written(self) -> None:
        for id in list(self.reference.values):
            self.read(id)

    @invariant()
    def svcr_agrees(self) -> None:
        if hasattr(self, "reference"):
            self.read(SVCR)


Vcpu.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_the_model_and_the_reference_agree = pytest.mark.slow(Vcpu.TestCase)
