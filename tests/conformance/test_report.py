# SPDX-License-Identifier: MIT
"""Reports: the same findings as text and JSON."""

from __future__ import annotations

import json

import pytest

from kvmabi.conformance import Outcome, read, run
from kvmabi.conformance.report import FORMATS
from kvmabi.steps.backends.model import ModelBackend

CASES = """
[[case]]
name = "a.good"
rule = "It is good."
source = "here"
steps = "new 1"
[[case]]
name = "a.bad"
rule = "It is bad & ugly."
source = "there"
steps = "new 1\\nget 0 x0 -> OK =1"
[[case]]
name = "b.absent"
rule = "It is absent."
source = "nowhere"
needs = ["has_el2"]
steps = "new 1"
"""


@pytest.fixture
def outcomes(model: ModelBackend) -> list[Outcome]:
    return run(model, read("f", CASES))


def test_text(model: ModelBackend, outcomes: list[Outcome]) -> None:
    """For people: what failed with its rule and both answers, why others were skipped, and the counts."""
    text = FORMATS["text"](model.describe(), outcomes)
    assert "FAILED a.bad" in text
    assert "It is bad & ugly." in text
    assert "expected: OK =1" in text
    assert "got:      ENOEXEC" in text
    assert "skipped   1: the host has no has_el2" in text
    assert text.endswith("1 passed, 1 failed, 1 skipped (3 steps)")


def test_json(model: ModelBackend, outcomes: list[Outcome]) -> None:
    """For programs: counts, and each case with its status."""
    report = json.loads(FORMATS["json"](model.describe(), outcomes))
    assert report["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert [case["status"] for case in report["cases"]] == ["passed", "failed", "skipped"]
    assert report["cases"][1]["differences"][0]["got"] == "ENOEXEC"
    assert report["sve_vector_bits"] == [vq * 128 for vq in model.describe().sve_vqs]
