# SPDX-License-Identifier: MIT
"""Cases as data: what ships is complete, and an error in a file is reported in one line."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from kvmabi.conformance import load, read
from kvmabi.errors import UsageError
from kvmabi.steps.backends.model import ModelBackend

GOOD = '[[case]]\nname = "a.b"\nrule = "r"\nsource = "s"\nsteps = "new 1"\n'


def test_every_case_says_what_it_proves() -> None:
    """Names are unique, of the form group.name; each case has a rule in a sentence, a source, and begins with a VM."""
    cases = load()
    assert not [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    for case in cases:
        assert re.fullmatch(r"[a-z]+\.[a-z0-9.-]+", case.name), case.name
        assert case.rule.endswith("."), case.name
        assert len(case.rule) > 20, case.name
        assert case.source, case.name
        assert case.lines[0].step.split()[0] == "new", case.name


def test_the_whole_abi_is_covered() -> None:
    """There is a group of cases for each part of the ABI, and one for every SVCR mode that a restore meets."""
    cases = {case.name: case for case in load()}
    groups = {name.partition(".")[0] for name in cases}
    assert groups >= {"life", "errors", "vls", "list", "data", "id", "firmware", "run", "sme", "restore"}
    for name in ("restore.sve-and-sme", "restore.sme-only"):
        assert cases[name].each == {"svcr": [0, 1, 2, 3]}


def test_parameters(model: ModelBackend) -> None:
    """A case is repeated for every combination of its parameters, the host's own vector lengths among them."""
    (case,) = read(
        "f", GOOD.replace("new 1", "init {v} {w}") + 'each = { v = [0, 1], w = "sve_vqs" }\nneeds = ["{v}"]\n'
    )
    host_features = model.describe()
    cases = list(case.for_host(host_features))
    assert len(cases) == 2 * len(host_features.sve_vqs)
    assert cases[0].name == f"a.b[v=0][w={host_features.sve_vqs[0]}]"
    assert cases[0].steps == f"init 0 {host_features.sve_vqs[0]}"
    assert cases[0].needs == ("0",)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('needs = ["sve", "sme"]', ""),
        ('needs = ["sve+sme2+fa64"]', ""),
        ('needs = ["has_el2"]', "the host has no has_el2"),
        ('needs = ["!sve"]', "the host has sve"),
        ('needs = ["sve_vqs>99"]', "of sve_vqs"),
        ('kernels = ["linux-*"]', "a rule of linux-"),
        ('kernels = ["sme-*", "linux-7.*"]', ""),
    ],
)
def test_what_a_host_lacks(model: ModelBackend, more: str, reason: str) -> None:
    """A case that cannot run says why, in words."""
    (case,) = read("f", GOOD + more)
    missing = case.missing(model.describe())
    assert reason in missing
    assert bool(missing) == bool(reason)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[case", "f:"),
        (GOOD.replace("rule", "role"), "case a.b: role: unknown key: did you mean rule"),
        (GOOD.replace('"new 1"', "1"), "case a.b: steps"),
        (GOOD + "more = 1\n", "case a.b: more: unknown key"),
        ("case = 3", "f: case: must be an array"),
        ('case = ["x"]', r"f: case\[1\]: must be a table"),
        ("[[case]]\n", r"f: case\[1\]\.name: is missing"),
        ("[[case]]\nname = 3\n", r"f: case\[1\]\.name: must be a string"),
        ("cases = 1", "f: cases: unknown key: did you mean case"),
        (GOOD + "needs = 3\n", "f: case a.b: needs: must be an array"),
        (GOOD + "needs = [3]\n", "f: case a.b: needs: must be an array of strings"),
        (GOOD + 'kernels = "x"\n', "f: case a.b: kernels: must be an array"),
        (GOOD + "each = 5\n", "f: case a.b: each: must be a table"),
        (GOOD + "each = { v = 5 }\n", "f: case a.b: each.v: must be an array of strings and numbers"),
        (GOOD + "each = { v = [[]] }\n", "f: case a.b: each.v: must be an array of strings and numbers"),
        (GOOD + 'each = { v = "sve_vq" }\n', "f: case a.b: each.v: .* did you mean sve_vqs"),
    ],
)
def test_wrong_files(text: str, words: str) -> None:
    """A file that is not a table of cases is a UsageError that names the case and the field."""
    with pytest.raises(UsageError, match=words):
        read("f", text)
