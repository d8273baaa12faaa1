# SPDX-License-Identifier: MIT
"""kvmabi replay: which host and which kernel a trace is replayed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Kvmabi
from cli.readers import run_of, suite_of

SEQUENCE = "# seq 1\nN 1\tOK\nV {}\t{}\n"  # a second vCPU: its number, and the answer
KERNEL = 'base = "sme-v12"\nmax_vcpus = {}\n'


def write(folder: Path, trace: str, **profiles: str) -> str:
    """A folder with a trace and the profiles that it names; returns the trace's path."""
    folder.mkdir(exist_ok=True)
    for name, text in profiles.items():
        (folder / f"{name}.toml").write_text(text, "utf-8")
    path = folder / "a.trace"
    path.write_text(trace, "utf-8")
    return str(path)


def mine(kernel: str = "sme-v12") -> str:
    """A host profile of the user's own."""
    return f'name = "mine"\nkernel = "{kernel}"\nrecorded = "nowhere"\nsve_vector_bits = [128]\nsme_vector_bits = []\n'


@pytest.mark.parametrize("where", ["trace", "host"])
def test_a_kernel_next_to_the_trace(kvmabi: Kvmabi, tmp_path: Path, where: str) -> None:
    """The kernel that a trace or its host names may be a file where the host may be one; --kernel goes first."""
    head = "# host mine\n" + ("# kernel few\n" if where == "trace" else "")
    host = mine() if where == "trace" else mine("few")
    path = write(tmp_path / "out", head + SEQUENCE.format(4, "EINVAL"), mine=host, few=KERNEL.format(4))
    assert kvmabi("replay", path) == (0, "2 steps, 0 mismatches\n", "")
    assert kvmabi("replay", "--kernel", "sme-v12", path).status == 1
    elsewhere = write(tmp_path / "elsewhere", head + SEQUENCE.format(4, "EINVAL"))
    assert kvmabi("replay", "--hosts", str(tmp_path / "out"), elsewhere).status == 0


def test_an_unknown_kernel(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A kernel that is neither built in nor next to the trace is misuse: the line names the trace and the kernel."""
    path = write(tmp_path, "# host sme-demo\n# kernel few\n" + SEQUENCE.format(4, "OK"))
    ended = kvmabi("replay", path)
    assert ended.status == 2
    assert ended.err.startswith(f"kvmabi: {path}: its kernel few is unknown: built-in ones are linux-6.1, ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("command", [("replay",), ("fuzz", "--against", "trace")], ids=["replay", "fuzz"])
def test_profiles_of_one_name(kvmabi: Kvmabi, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Traces in two folders name different hosts, and kernels, by the same names: each is replayed on its own."""
    head = "# host mine\n# kernel few\n"
    few = write(tmp_path / "a", head + SEQUENCE.format(4, "EINVAL"), mine=mine(), few=KERNEL.format(4))
    more = write(tmp_path / "b", head + SEQUENCE.format(4, "OK"), mine=mine(), few=KERNEL.format(5))
    ended = kvmabi(*command, few, more)
    assert (ended.status, ended.err) == (0, "")


@pytest.fixture
def traces(tmp_path: Path) -> tuple[str, str]:
    """A trace that agrees and one that differs, in its third line."""
    good = write(tmp_path / "good", "# host sme-demo\n" + SEQUENCE.format(4, "OK"))
    bad = write(tmp_path / "bad", "# host sme-demo\n# seq 1\nN 1\tEPERM\nV 4\tOK\n")
    return good, bad


def test_junit(kvmabi: Kvmabi, traces: tuple[str, str]) -> None:
    """A test case for each trace."""
    ended = kvmabi("replay", "--format", "junit", *traces)
    assert (ended.status, ended.err) == (1, "")
    good, bad = suite_of(ended.out)
    assert (good.get("name"), len(good)) == (traces[0], 0)
    assert (bad[0].get("message"), bad[0].get("type")) == ("1 of 2 steps differ", "answer-differs")
    assert "expected: EPERM" in (bad[0].text or "")


def test_sarif(kvmabi: Kvmabi, traces: tuple[str, str]) -> None:
    """A result for each difference, at its line of the trace; none if there is none."""
    (result,) = run_of(kvmabi("replay", "--format", "sarif", *traces).out)["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": Path(traces[1]).as_uri()}, "region": {"startLine": 3}}
    assert "the kernel answered EPERM, the model answers OK" in result["message"]["text"]
    assert run_of(kvmabi("replay", "--format", "sarif", traces[0]).out)["results"] == []


def test_many_traces_show_the_first_mismatches(kvmabi: Kvmabi, traces: tuple[str, str]) -> None:
    """Text and JSON count all mismatches and show the first ten, of all traces together."""
    ended = kvmabi("replay", *[traces[1]] * 12)
    assert ended.out.count("expected: EPERM") == 10
    assert ended.out.endswith("24 steps, 12 mismatches\n")
