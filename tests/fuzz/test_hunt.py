# SPDX-License-Identifier: MIT
"""Hunting: equal backends have no findings; a difference is found, shrunk and reported as a case that proves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from kvmabi import regid
from kvmabi.conformance import Backend, read, run
from kvmabi.fuzz import Finding, Generator, World, case_text, hunt, shrink
from kvmabi.steps.backends.model import ModelBackend

SEQUENCES = 60
SVCR, ZT0 = (f"{regid.parse(name):x}" for name in ("svcr", "zt0"))


class Wrong(Backend):
    """A model that forgets that ZT0 needs SVCR.ZA: it answers OK."""

    name = "wrong"

    def __init__(self) -> None:
        super().__init__()
        self.honest = ModelBackend("sme-demo")
        self.kernel, self.release = self.honest.kernel, self.honest.release

    def answers(self, steps: Iterable[str]) -> list[str]:
        asked = list(steps)
        answers = self.honest.answers(asked)
        return [
            "OK 00*64." if step.split()[:1] == ["G"] and step.split()[2] == ZT0 and answer == "EBUSY" else answer
            for step, answer in zip(asked, answers, strict=True)
        ]

    def close(self) -> None:
        self.honest.close()


@pytest.fixture
def wrong() -> Iterator[Wrong]:
    with Wrong() as backend:
        yield backend


def numbered(world: World, count: int = SEQUENCES) -> Iterator[tuple[int, list[str]]]:
    generator = Generator(7, world)
    return ((number, generator.sequence(number)) for number in range(count))


@pytest.mark.slow
def test_a_model_agrees_with_itself(model: ModelBackend, world: World) -> None:
    """Two models of one host never differ, and every sequence is counted."""
    counts: list[tuple[int, int]] = []
    with ModelBackend("sme-demo") as other:
        assert list(hunt(model, other, numbered(world), lambda *count: counts.append(count))) == []
    assert counts[-1][0] == SEQUENCES
    assert sum(steps for _, steps in counts) == sum(len(steps) for _, steps in numbered(world))


@pytest.mark.slow
def test_a_wrong_model_is_found_and_the_sequence_shrunk(model: ModelBackend, wrong: Wrong, world: World) -> None:
    """A rule that a model forgot is shown in the fewest steps: a VM, INIT with SME, the read."""
    finding = next(iter(hunt(model, wrong, numbered(world))))
    assert [step.split()[0] for step in finding.steps] == ["N", "I", "G"]
    assert finding.expected == ["OK", "OK", "EBUSY"]
    assert finding.got[-1] == "OK 00*64."
    assert finding.kind == (f"G {ZT0}", "EBUSY", "OK")


@pytest.mark.slow
def test_known_kinds_are_passed_over(model: ModelBackend, wrong: Wrong, world: World) -> None:
    """A known finding is not reported again."""
    assert list(hunt(model, wrong, numbered(world), known={(f"G {ZT0}", "EBUSY", "OK")})) == []


@pytest.mark.slow
def test_the_case_is_ready_to_be_pasted(model: ModelBackend, wrong: Wrong, world: World) -> None:
    """The printed case passes on the kernel that was right and fails on the model that was wrong."""
    finding = next(iter(hunt(model, wrong, numbered(world))))
    text = case_text(finding, "example", model.describe(), model.kernel)
    assert "get 0 zt0 -> EBUSY" in text or "get 1 zt0 -> EBUSY" in text
    cases = read("pasted", text)
    assert run(model, cases)[0].status == "passed"
    assert run(wrong, cases)[0].status == "failed"


@pytest.mark.slow
def test_every_sequence_can_be_pasted(model: ModelBackend, world: World) -> None:
    """Whatever the steps are, their case asks of a kernel what it answered."""
    for number, steps in numbered(world, 40):
        answers = model.answers(steps)
        finding = Finding(number, steps, answers, answers)
        (outcome,) = run(model, read("f", case_text(finding, str(number), model.describe(), model.kernel)))
        assert outcome.differences == [], steps


@pytest.mark.parametrize(
    ("step", "about"), [("q d0 1 104 0", "q gicd_isenabler"), ("o d0 5 10000000c 1", "o gicr_typer"), ("R 0", "R ")]
)
def test_differences_of_one_register_are_of_one_kind(step: str, about: str) -> None:
    """Of an attribute the register counts, not which of many or whose it is."""
    assert Finding(0, [step], ["EBUSY"], ["OK 5"]).kind == (about, "EBUSY", "OK")


def test_shrinking_keeps_what_matters() -> None:
    """Only steps that are needed stay, the first and the last always."""
    steps = [f"s{number}" for number in range(60)]
    tries = 0

    def shows(fewer: list[str]) -> bool:
        nonlocal tries
        tries += 1
        return {"s7", "s31"} <= set(fewer)

    assert shrink(steps, shows) == ["s0", "s7", "s31", "s59"]
    assert tries < 100
    assert shrink(["a"], lambda _: True) == ["a"]
    assert shrink(steps, lambda fewer: len(fewer) == 60) == steps
    assert len(shrink(steps, shows, tries=3)) > 4
