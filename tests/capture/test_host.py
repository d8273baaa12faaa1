# SPDX-License-Identifier: MIT
"""Captures: a captured host is a host profile, and the model of it answers as what was captured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvmabi import uapi
from kvmabi.capture import capture, write
from kvmabi.capture.host import Captured
from kvmabi.conformance import load, run
from kvmabi.errors import UsageError
from kvmabi.fuzz import Generator, World
from kvmabi.profiles import load_host
from kvmabi.steps.backends.model import ModelBackend

KEYS = [
    *("name", "recorded_from", "qemu", "cpu", "kernel_args", "kernel_release", "kernel_profile", "cpuinfo_features"),
    *("capabilities", "sve_vector_bits", "sme_vector_bits", "writable_masks", "cpu_keeps"),
    *("features", "registers", "resets"),
]
SEQUENCES = 20


@pytest.fixture(scope="module")
def captured() -> Captured:
    with ModelBackend("sme-demo") as model:
        return capture(model, "copy", "the model")


def test_the_form(captured: Captured) -> None:
    """A capture has the fields of a recorded host, in their order, and all registers of the richest vCPU."""
    assert list(captured) == KEYS
    assert captured["features"] == "SVE+SME+PSCI+PMU+PA+PG"
    assert captured["kernel_profile"] == "sme-v12"
    assert len(captured["registers"]) > 350
    assert {"none", "SVE", "PMU", "PA+PG", "EL1_32", "SME", "SVE+SME"} <= captured["resets"].keys()
    assert captured["registers"][f"{uapi.KVM_REG_ARM_TIMER_CNT:#x}"] is None
    assert captured["capabilities"]["system"]["131"] == "-EINVAL"


@pytest.mark.slow
def test_the_copy_answers_as_the_original(captured: Captured, tmp_path: Path) -> None:
    """Written, read and emulated, a captured host passes the suite and answers random sequences as the original."""
    path = tmp_path / "copy.json"
    write(str(path), captured)
    assert json.loads(path.read_text()) == json.loads(json.dumps(captured))
    host = load_host(str(path))
    with ModelBackend("sme-demo") as original, ModelBackend(host) as copy:
        outcomes = [run(backend, load()) for backend in (original, copy)]
        assert [o.differences for o in outcomes[0]] == [o.differences for o in outcomes[1]]
        generator = Generator(9, World(original.describe(), original.kernel, captured))
        for number in range(SEQUENCES):
            steps = generator.sequence(number)
            assert copy.answers(steps) == original.answers(steps)


def test_nothing_to_record() -> None:
    """Without a vCPU that can be created there is nothing to record, and the error says so."""

    class Refuses(ModelBackend):
        def answers(self, steps):  # type: ignore[no-untyped-def]
            return ["EINVAL" if step.startswith("I ") else "OK" for step in steps]

        def describe(self):  # type: ignore[no-untyped-def]
            return host_features

    with ModelBackend("sme-demo") as model:
        host_features = model.describe()
    with Refuses("sme-demo") as backend, pytest.raises(UsageError, match="no vCPU can be created"):
        capture(backend, "x", "y")
