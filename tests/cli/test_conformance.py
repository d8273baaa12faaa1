# SPDX-License-Identifier: MIT
"""kvmabi conformance, fuzz and capture: exit statuses, forms of the report, and misuse in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from cli.conftest import Kvmabi
from cli.readers import run_of, suite_of
from kvmabi.steps.backends import model as model_backend

TRACE = "# host sme-demo\n# seq 1.0\nN 1\tOK\nI 0 5 0\tOK\nG 0 6030000000100000\t{}\n"


@pytest.mark.slow
def test_the_suite_on_the_model(kvmabi: Kvmabi) -> None:
    """The suite passes on the demo host: status 0 and a line of counts."""
    ended = kvmabi("conformance", "--host", "sme-demo", "--case", "sme.*")
    assert (ended.status, ended.err) == (0, "")
    assert " 0 failed, " in ended.out.splitlines()[-1]


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers EAGAIN where EBUSY is right."""
    honest = model_backend.ModelBackend.answers

    def answers(self: model_backend.ModelBackend, steps: Iterable[str]) -> list[str]:
        return [answer.replace("EBUSY", "EAGAIN") for answer in honest(self, steps)]

    monkeypatch.setattr(model_backend.ModelBackend, "answers", answers)


def test_a_difference_is_status_1(kvmabi: Kvmabi, lying: None) -> None:
    """A kernel that answers differently: the case, its rule, both answers, status 1."""
    ended = kvmabi("conformance", "--host", "sme-demo", "--case", "sme.za-needs-svcr")
    assert ended.status == 1
    assert "FAILED sme.za-needs-svcr" in ended.out
    assert "expected: EBUSY" in ended.out
    assert "got:      EAGAIN" in ended.out


def test_forms(kvmabi: Kvmabi) -> None:
    """JSON and JUnit have the same contents as text; --list prints cases, rules and sources."""
    report = json.loads(kvmabi("conformance", "--format", "json", "--case", "life.*").out)
    assert report["counts"]["failed"] == 0
    suite = suite_of(kvmabi("conformance", "--format", "junit", "--case", "life.*").out)
    assert (suite.get("failures"), suite.get("tests")) == ("0", str(len(report["cases"])))
    assert "restore.sve-and-sme" in kvmabi("conformance", "--list").out


def test_fuzz_against_a_trace(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A trace that agrees is status 0; one that differs is reported as a case, status 1."""
    path = tmp_path / "some.trace"
    path.write_text(TRACE.format("OK 00*8."))
    ended = kvmabi("fuzz", "--against", "trace", str(path))
    assert (ended.status, ended.out) == (0, "3 recorded steps, seed 0: no differences\n")
    path.write_text(TRACE.format("ENOENT"))
    ended = kvmabi("fuzz", "--against", "trace", "--seed", "4", str(path))
    assert ended.status == 1
    assert "[[case]]" in ended.out
    assert "get 0 x0 -> ENOENT" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("conformance", "--case", "nix"), "no case matches 'nix'"),
        (("conformance", "--backend", "vm"), "--kernel-image"),
        (("conformance", "--backend", "cloud"), "invalid choice: 'cloud'"),
        (("conformance", "--backend", "vm", "--kernel-image", "/nonexistent"), "no such kernel image"),
        (("conformance", "--kernel-image", "x"), "--kernel-image is for the backend vm"),
        (("fuzz",), "--against"),
        (("fuzz", "--against", "trace"), "--against trace needs traces"),
        (("fuzz", "--against", "trace", "/nonexistent"), "no such file"),
        (("fuzz", "--against", "trace", "--steps", "0", "x"), "--steps and --findings"),
        (("fuzz", "--against", "vm", "--kernel-image", "x", "some.trace"), "FILE is for --against trace"),
        (("capture",), "-o"),
        (("capture", "--backend", "vm", "-o", "x.json"), "--kernel-image"),
        (("capture", "--backend", "model", "-o", "x.json"), "invalid choice: 'model'"),
    ],
)
def test_misuse(kvmabi: Kvmabi, words: tuple[str, ...], message: str) -> None:
    """An impossible request is one line on stderr and status 2."""
    ended = kvmabi(*words)
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err.count("\n") == 1
    assert re.search(message, ended.err), ended.err


@pytest.mark.parametrize("command", ["conformance", "fuzz", "capture"])
def test_help_has_an_example(kvmabi: Kvmabi, command: str) -> None:
    """--help ends with an example and the exit statuses."""
    ended = kvmabi(command, "--help")
    assert ended.status == 0
    assert f"  kvmabi {command} " in ended.out
    assert "exit status: 0" in ended.out


CASE = """[[case]]
name = "mine.get"
rule = "x0 reads as zero after INIT"
source = "none"
steps = '''
new 1
init 0 psci_0_2
get 0 x0 -> OK =0
'''
"""


def test_a_case_file_of_ones_own(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """``--cases`` runs a file's cases instead of the built-in ones; one that is wrong is a line that names it."""
    path = tmp_path / "mine.toml"
    path.write_text(CASE, "utf-8")
    ended = kvmabi("conformance", "--cases", str(path))
    assert ended.status == 0
    assert "1 passed" in ended.out
    path.write_text(CASE.replace("get 0 x0", "get"), "utf-8")
    ended = kvmabi("conformance", "--cases", str(path))
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert "mine.get" in ended.err
    for text in ("", "case = 3", "[[case]]\nname = 3"):
        path.write_text(text, "utf-8")
        assert kvmabi("conformance", "--cases", str(path)).status == 2
    assert kvmabi("conformance", "--cases", str(tmp_path / "absent.toml")).status == 2


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A file with a case that passes, one that fails and one that cannot run."""
    path = tmp_path / "mine.toml"
    more = '[[case]]\nname = "mine.bad"\nrule = "a & <b>, 100%"\nsource = "none"\nsteps = "new 1\\nget 0 x0 -> OK"\n'
    skipped = '[[case]]\nname = "mine.absent"\nrule = "r"\nsource = "none"\nneeds = ["has_el2"]\nsteps = "new 1"\n'
    path.write_text(CASE + more + skipped, "utf-8")
    return path


def test_junit(kvmabi: Kvmabi, failing: Path) -> None:
    """A test case for each case: passed, failed with its rule and both answers, skipped with the reason."""
    ended = kvmabi("conformance", "--cases", str(failing), "--format", "junit")
    assert (ended.status, ended.err) == (1, "")
    suite = suite_of(ended.out)
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    good, bad, absent = suite
    assert (good.get("classname"), good.get("name"), len(good)) == ("mine", "get", 0)
    assert (bad[0].tag, bad[0].get("message")) == ("failure", "a & <b>, 100%")
    assert "got:      ENOEXEC" in (bad[0].text or "")
    assert (absent[0].tag, absent[0].get("message")) == ("skipped", "the host has no has_el2")


def test_sarif(kvmabi: Kvmabi, failing: Path) -> None:
    """A result for the case that failed, on the line where its name stands; built-in cases have no file."""
    run = run_of(kvmabi("conformance", "--cases", str(failing), "--format", "sarif").out)
    (result,) = run["results"]
    (location,) = result["locations"]
    line = failing.read_text("utf-8").splitlines().index('name = "mine.bad"') + 1
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": failing.as_uri()},
        "region": {"startLine": line},
    }
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "mine.bad"


def test_a_built_in_case_has_no_file(
    kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lying: None
) -> None:
    """Also where the working directory has a file of that name."""
    monkeypatch.chdir(tmp_path)
    for name in ("sme.toml", "life.toml", "za.toml"):
        (tmp_path / name).write_text('name = "sme.za-needs-svcr"\n', "utf-8")
    run = run_of(kvmabi("conformance", "--case", "sme.za-needs-svcr", "--format", "sarif").out)
    assert "physicalLocation" not in run["results"][0]["locations"][0]


def test_annotations(kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch, failing: Path) -> None:
    """In GitHub Actions each failed case is a line on stderr, with the place in its file; only with text."""
    words = ("conformance", "--cases", str(failing))
    plain = kvmabi(*words)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    ended = kvmabi(*words)
    assert ended.out == plain.out
    assert ended.err.startswith("::error title=kvmabi conformance%3A mine.bad,file=")
    assert "::a & <b>, 100%25%0A" in ended.err
    assert ended.err.count("\n") == 1
    for form in ("json", "junit", "sarif"):
        assert kvmabi(*words, "--format", form).err == ""
