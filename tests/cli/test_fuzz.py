# SPDX-License-Identifier: MIT
"""kvmabi fuzz and capture on a live kernel, whose part a model plays."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from cli.conftest import Kvmabi
from cli.readers import suite_of
from cli.schemas import validate
from kvmabi.cli import backend_options
from kvmabi.profiles import load_kernel
from kvmabi.steps.backends.model import ModelBackend


class Kernel(ModelBackend):
    """A model that passes for a kernel in QEMU; ``lie`` makes it answer EPERM where EBUSY is right."""

    name = "vm"
    lie = False

    def answers(self, steps: Iterable[str]) -> list[str]:
        answers = super().answers(steps)
        return [answer.replace("EBUSY", "EPERM") for answer in answers] if self.lie else answers


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_options, "open_from", lambda *_, **__: Kernel("sme-demo"))
    monkeypatch.setattr(Kernel, "lie", False)


@pytest.mark.slow
def test_an_agreeing_kernel(kvmabi: Kvmabi) -> None:
    """The requested number of steps, no difference, status 0."""
    ended = kvmabi("fuzz", "--against", "vm", "--steps", "1500")
    assert (ended.status, ended.err) == (0, "")
    assert int(ended.out.split()[0]) >= 1500
    assert ended.out.endswith("seed 0: no differences\n")


@pytest.mark.slow
def test_a_run_goes_on(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """With a state file a second run does only the steps that are missing, and another seed is refused."""
    path = tmp_path / "run.json"
    assert kvmabi("fuzz", "--against", "vm", "--steps", "1000", "--state", str(path)).status == 0
    first = json.loads(path.read_text())
    assert kvmabi("fuzz", "--against", "vm", "--steps", "1000", "--state", str(path)).status == 0
    assert json.loads(path.read_text()) == first
    assert kvmabi("fuzz", "--against", "vm", "--steps", "2500", "--state", str(path)).status == 0
    second = json.loads(path.read_text())
    assert second["next"] > first["next"]
    assert second["steps"] >= 2500
    ended = kvmabi("fuzz", "--against", "vm", "--seed", "1", "--state", str(path))
    assert ended.status == 2
    assert "the state of another run" in ended.err


@pytest.mark.slow
def test_a_kernel_that_differs(kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each kind of difference is reported once, as a case; the run stops at the requested number, status 1.

    The closing line counts the steps that it took.
    """
    monkeypatch.setattr(Kernel, "lie", True)
    path = tmp_path / "run.json"
    words = ("fuzz", "--against", "vm", "--steps", "20000", "--findings", "2", "--state", str(path))
    ended = kvmabi(*words, "--host", "sme-demo")
    assert ended.status == 1
    assert ended.out.count("[[case]]") == 2
    assert "-> EPERM" in ended.out
    assert "# the model answers: EBUSY" in ended.out
    assert int(ended.out.splitlines()[-1].split()[0]) > 0
    assert len(json.loads(path.read_text())["kinds"]) == 2


@pytest.mark.parametrize("host", [None, "sme-demo", "file"])
@pytest.mark.parametrize("name", ["found.trace", "found.trace.xz"])
def test_a_saved_trace_replays(
    kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str | None, name: str
) -> None:
    """What differs is written with the kernel's answers and its host; replay finds the same differences again."""
    monkeypatch.setattr(Kernel, "lie", True)
    path = tmp_path / "out" / name
    path.parent.mkdir()
    words = ["fuzz", "--against", "vm", "--steps", "20000", "--findings", "2", "--save-trace", str(path)]
    if host == "file":
        monkeypatch.setattr(Kernel, "lie", False)
        kvmabi("capture", "--backend", "vm", "-o", str(tmp_path / "mine.json"))
        monkeypatch.setattr(Kernel, "lie", True)
        words += ["--host", str(tmp_path / "mine.json")]
    elif host:
        words += ["--host", host]
    assert kvmabi(*words).status == 1
    ended = kvmabi("replay", str(path))
    assert ended.status == 1
    assert "expected: EPERM" in ended.out
    assert "got:      EBUSY" in ended.out
    assert " 2 mismatches" in ended.out
    assert len(list(path.parent.iterdir())) == (1 if host == "sme-demo" else 2)


def test_a_saved_trace_has_its_kernel(kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernel profile of --kernel, with what it is based on, is next to the trace, and replay takes that one.

    The file has no name of its own, so the profile has the name of the built-in one that it is based on, which is
    the one that answered.
    """
    file = tmp_path / "turned.toml"
    file.write_text('base = "sme-v12"\n[switches]\nza_disabled_errno = "EACCES"\n', "utf-8")
    real = Kernel("sme-demo", "sme-v12")
    real.kernel = load_kernel(str(file))
    monkeypatch.setattr(backend_options, "open_from", lambda *_, **__: real)
    path = tmp_path / "out" / "found.trace"
    path.parent.mkdir()
    words = ("fuzz", "--against", "vm", "--steps", "20000", "--findings", "2")
    assert kvmabi(*words, "--kernel", str(file), "--save-trace", str(path)).status == 1
    file.unlink()
    ended = kvmabi("replay", str(path))
    assert (ended.status, ended.err) == (1, "")
    assert "expected: EBUSY\n  got:      EACCES" in ended.out
    assert kvmabi("replay", "--kernel", "sme-v12", str(path)).status == 0
    assert kvmabi("fuzz", "--against", "trace", str(path)).status == 1


def test_a_run_that_goes_on_continues_its_trace(
    kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a state file the findings of the first run stay in the trace; without one it starts over."""
    monkeypatch.setattr(Kernel, "lie", True)
    path = str(tmp_path / "found.trace")
    words = ("fuzz", "--against", "vm", "--steps", "20000", "--state", str(tmp_path / "run.json"), "--save-trace", path)
    kvmabi(*words, "--findings", "1")
    first = Path(path).read_text()
    kvmabi(*words, "--findings", "2")
    assert Path(path).read_text().startswith(first)
    assert Path(path).read_text().count("# seq ") == 2
    assert kvmabi("fuzz", "--against", "trace", "--save-trace", path, path).status == 2


@pytest.mark.slow
def test_capture(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A captured host is written as a profile that other commands accept."""
    path = tmp_path / "mine.json"
    ended = kvmabi("capture", "--backend", "vm", "-o", str(path))
    assert ended.status == 0
    assert "registers with SVE+SME+PSCI+PMU+PA+PG" in ended.out
    assert json.loads(path.read_text())["name"] == "mine"
    with ModelBackend(str(path)) as copy:
        assert "fa64" in copy.describe().traits


@pytest.mark.slow
def test_forms(kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has each difference as a case, JUnit as a failed test case; without any there is one that passed."""
    words = ("fuzz", "--against", "vm", "--host", "sme-demo", "--steps", "20000", "--findings", "2", "--format")
    monkeypatch.setattr(Kernel, "lie", True)
    ended = kvmabi(*words, "json")
    assert ended.status == 1
    report = validate("fuzz", ended.out)
    assert [difference["kind"][-2:] for difference in report["differences"]] == [["EPERM", "EBUSY"]] * 2
    suite = suite_of(kvmabi(*words, "junit").out)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert "[[case]]" in (suite.findtext("testcase/failure") or "")
    monkeypatch.setattr(Kernel, "lie", False)
    ended = kvmabi("fuzz", "--against", "vm", "--host", "sme-demo", "--steps", "500", "--format", "junit")
    assert (ended.status, suite_of(ended.out).get("tests"), suite_of(ended.out).get("failures")) == (0, "1", "0")


def test_a_state_with_kinds_missing(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Each difference in a state has a kind; a file in which one is missing is misuse."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"seed": 0, "against": "vm", "next": 0, "steps": 0, "found": ["x"], "kinds": []}))
    ended = kvmabi("fuzz", "--against", "vm", "--state", str(path))
    assert ended.status == 2
    assert "kinds: must have as many entries as found" in ended.err
