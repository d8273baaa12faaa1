# SPDX-License-Identifier: MIT
"""The runner: the model passes on every built-in host, a backend that lies fails, and running nothing is an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.conftest import Answer, Liar
from kvmabi import regid
from kvmabi.conformance import load, read, run, select
from kvmabi.errors import UsageError
from kvmabi.profiles import host_names, load_kernel
from kvmabi.steps.backends.model import ModelBackend

FORM = '[[case]]\nname = "a.b"\nrule = "r"\nsource = "s"\nsteps = """\n{}\n"""\n'
SVCR, ZT0, FPSR = (f"{regid.parse(name):x}" for name in ("svcr", "zt0", "fpsr"))


def forget(op: str, id: str, answer: str) -> Answer:
    """Answer steps of this letter and register with ``answer``."""
    return lambda step, answered: answer if step.startswith(f"{op} ") and step.split()[2] == id else answered


@pytest.mark.slow
@pytest.mark.parametrize("host", host_names())
def test_the_model_passes_everywhere(host: str) -> None:
    """Every case that a built-in host can run agrees with the model of it."""
    with ModelBackend(host) as model:
        outcomes = run(model, load())
    assert {outcome.case.name: outcome.differences for outcome in outcomes if outcome.differences} == {}
    assert sum(outcome.status == "passed" for outcome in outcomes) > 50


@pytest.mark.slow
@pytest.mark.parametrize("host", ["sme-demo", "sme-nosve-sme512"])
def test_the_forecast_passes(host: str) -> None:
    """So does what SME's rules give on the kernel that may have it; no case of SME is left out that v12 runs."""
    ran = {}
    for kernel in ("sme-v12", "sme-forecast"):
        with ModelBackend(host, load_kernel(kernel)) as model:
            outcomes = run(model, load())
        assert {outcome.case.name: outcome.differences for outcome in outcomes if outcome.differences} == {}
        ran[kernel] = {outcome.case.name for outcome in outcomes if outcome.status == "passed"}
    assert ran["sme-v12"] == ran["sme-forecast"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "case"),
    [
        (forget("S", SVCR, "OK"), "sme.svcr-values"),
        (forget("G", ZT0, "EPERM"), "sme.za-needs-svcr"),
        (forget("G", FPSR, "OK 00*4."), "sme.sm-zeroes"),
        (lambda step, answered: "OK" if step.startswith("F ") else answered, "life.finalize"),
        (lambda step, answered: "EINTR" if step.startswith("R ") else answered, "run.not-finalized"),
        (lambda step, answered: answered.replace("ENOENT", "EINVAL"), "errors.sve-precedence"),
        (lambda step, answered: answered.replace("E2BIG", "OK"), "list.count"),
        (lambda step, answered: "EBUSY" if step.startswith("S ") else answered, "restore.sve-and-sme"),
        (
            lambda step, answered: "OK 00*256." if answered.startswith("OK ") and "608000000015" in step else answered,
            "vls.truncated",
        ),
    ],
)
def test_a_lie_is_found(liar: Callable[[Answer], Liar], change: Answer, case: str) -> None:
    """A kernel that answered otherwise would fail the case that proves the rule."""
    outcomes = run(liar(change), select(load(), case))
    assert any(outcome.status == "failed" for outcome in outcomes)


def test_a_difference_has_both_answers(model: ModelBackend) -> None:
    """A difference has the line, the step as the backend got it, and both answers."""
    (outcome,) = run(model, read("f", FORM.format("new 1\nget 0 x0 -> OK =1")))
    (difference,) = outcome.differences
    assert difference.line == "get 0 x0"
    assert difference.step == f"G 0 {regid.parse('x0'):x}"
    assert (difference.expected, difference.got) == ("OK =1", "ENOEXEC")


def test_save_and_restore(model: ModelBackend) -> None:
    """The macros save, restore and same report what was refused and what differs, by bank."""
    lines = "new 2\ninit 0 sve\ninit 1 sve\nfinalize 0\nfinalize 1\nset-pattern 0 z* 1\nsave 0 a\n"
    lines += "same 1 a but mpidr_el1 -> differ z\n"
    lines += "restore 1 a -> EPERM sve_vls\nsame 1 a but mpidr_el1"
    (outcome,) = run(model, read("f", FORM.format(lines)))
    assert outcome.differences == []


def test_skipped_cases_say_why(model: ModelBackend) -> None:
    """What cannot run is skipped with the reason, and hides nothing: the others run."""
    cases = read("f", FORM.format("new 1") + FORM.format("new 1") + 'needs = ["has_el2"]\n')
    assert [outcome.status for outcome in run(model, cases)] == ["passed", "skipped"]


def test_running_nothing_is_an_error(model: ModelBackend) -> None:
    """No case at all, none of that name, or all skipped: a UsageError, not a success."""
    with pytest.raises(UsageError, match="has_el2"):
        run(model, read("f", FORM.format("new 1") + 'needs = ["has_el2"]\n'))
    with pytest.raises(UsageError, match="there are none"):
        run(model, [])
    with pytest.raises(UsageError, match=r"no case matches 'nix\.\*'"):
        select(load(), "nix.*")
    assert {case.name.partition(".")[0] for case in select(load(), "sme.*")} == {"sme"}
    assert {case.name.partition(".")[0] for case in select(load(), "sme.*", "vgic.*")} == {"sme", "vgic"}
    with pytest.raises(UsageError, match="nix"):
        select(load(), "sme.*", "nix")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "?",
            "get 0 nix",
            "get 0 x0 -> OK zz",
            "set 0 x0 $never",
            "restore 0 never",
            "init 0 nix",
            "get",
            "same 0 never",
        ),
        *("new", "new x", "I 0", "init 0", "ioctl", "save", "save 0", "set 0 x0 =1/0", "set 0 sve_vls vls:0"),
        *("set 0 sve_vls vls:99999", "get 0 z*@4", "get 0 x0@0", "create-device x 0", "run s", "get zero x0"),
    ],
)
def test_a_case_that_is_wrong_is_named(model: ModelBackend, line: str) -> None:
    """A line that is none is a UsageError with the file's and the case's name, never an internal exception."""
    with pytest.raises(UsageError, match=r"^f: case a\.b: steps: "):
        run(model, read("f", FORM.format(f"new 1\ninit 0 none\n{line}")))
