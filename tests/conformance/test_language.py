# SPDX-License-Identifier: MIT
"""The cases' language: lines become the steps that their documentation says."""

from __future__ import annotations

import pytest

from kvmabi import regid, uapi
from kvmabi.conformance import language
from kvmabi.conformance.language import Line, parse
from kvmabi.errors import UsageError
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.grammar import WORDS


def steps(model: ModelBackend, text: str) -> list[str]:
    (line,) = parse(text)
    return [step.step for step in language.concrete(line, model.describe(), model.kernel)]


def test_parse_takes_comments_and_blanks_away() -> None:
    """A line is a step and an answer, OK where none is given; # starts a comment."""
    assert parse("new 1\n\n  # nothing\nget 0   x0 -> OK =1 # why\n") == [
        Line("new 1", "OK"),
        Line("get 0 x0", "OK =1"),
    ]


def test_init(model: ModelBackend) -> None:
    """Features go by the names of the kernel's profile; the preferred target is filled in."""
    sve = 1 << model.kernel.features["sve"].bit
    sme = 1 << model.kernel.features["sme"].bit
    assert steps(model, "init 0 sve+sme") == [f"I 0 5 {sve | sme:x}"]
    assert steps(model, "init 1 none target 3") == ["I 1 3 0"]
    assert steps(model, "init 0 ptrauth+bit20") == ["I 0 5 100060"]
    assert steps(model, "init 0 sve word 3 0x80") == [f"i 0 5 {sve:x} 0 0 80 0 0 0"]
    with pytest.raises(UsageError, match="no vCPU feature 'sve3'"):
        steps(model, "init 0 sve3")


def test_banks(model: ModelBackend) -> None:
    """z* is 32 steps, za* one for each row of the host's longest vector length; seeds rise by one."""
    assert len(steps(model, "get 0 z*")) == 32
    assert len(steps(model, "get 0 za*")) == max(model.describe().sme_vqs) * 16
    patterns = steps(model, "set-pattern 0 p* 254")
    assert [step.split()[3] for step in patterns[:3]] == ["254", "255", "0"]
    answers = language.concrete(Line("get 0 z*", "OK pattern:3/16"), model.describe(), model.kernel)
    assert answers[31].answer == "OK pattern:34/16"


def test_bent_ids(model: ModelBackend) -> None:
    """+N adds to an id, @N gives it another size."""
    x0 = regid.parse("x0")
    assert steps(model, "get 0 x0+0x10") == [f"G 0 {x0 + 16:x}"]
    (size4,) = steps(model, "get 0 x0@4")
    assert uapi.KVM_REG_SIZE(int(size4.split()[2], 16)) == 4


def test_values_and_ioctls(model: ModelBackend) -> None:
    """S gets bytes, X and A the number of an ioctl by its name."""
    assert steps(model, "set 0 fpsr =0x9f") == [f"S 0 {regid.parse('fpsr'):x} 9f000000"]
    assert steps(model, "ioctl v KVM_CHECK_EXTENSION 10") == [f"X v {uapi.KVM_CHECK_EXTENSION:x} a"]
    assert steps(model, "ioctl-struct 0 KVM_GET_MP_STATE") == [f"A 0 {uapi.KVM_GET_MP_STATE:x}"]
    assert steps(model, "ioctl 0 0xaeff 0x10") == ["X 0 aeff 10"]
    assert steps(model, "list 0") == ["L 0 4096"]
    assert steps(model, "finalize 0") == ["F 0 4"]
    assert steps(model, "set-partial 0 z3 sve_vl 9") == [
        f"s 0 {regid.parse('z3'):x} {max(model.describe().sve_vqs) * 16} 9"
    ]


@pytest.mark.parametrize(
    ("name", "group"), [("z7", "z"), ("p15", "p"), ("ffr", "ffr"), ("za.h[9]", "za"), ("zt0", "zt0"), ("svcr", "svcr")]
)
def test_group(name: str, group: str) -> None:
    """Restores and comparisons are summed up by bank."""
    assert language.group(regid.parse(name)) == group


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "'' is not a step"),
        ("G 0 x0", "'G' is not a step"),
        ("gte 0 x0", "did you mean get"),
        ("init", "init lacks file features"),
        ("init 0", "init lacks features"),
        ("init 0 sve target", "neither 'target N' nor"),
        ("init 0 sve word 7 1", "neither 'target N' nor"),
        ("get 0", "'get 0' lacks id"),
        ("ioctl", "lacks file request argument"),
        ("set-attr d0 0 1", "lacks value"),
        ("get 0 x0 1", "has '1' too many"),
    ],
)
def test_what_is_not_a_line_says_why(model: ModelBackend, line: str, words: str) -> None:
    """What is missing, too many or mistyped is named."""
    with pytest.raises(ValueError, match=words):
        language.concrete(Line(line, "OK"), model.describe(), model.kernel)


def test_every_step_has_a_place_in_the_language() -> None:
    """What cases can say is in the docstring, by its word; only the wide INIT is said as an option of init."""
    assert [word for word in WORDS if word not in str(language.__doc__)] == ["init-words"]


def test_the_wide_init_comes_by_a_word(model: ModelBackend) -> None:
    """Several words and another target may be given, in any order."""
    assert steps(model, "init 0 none word 1 2 target 3 word 6 0x10") == ["i 0 3 0 2 0 0 0 0 10"]
