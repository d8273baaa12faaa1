# SPDX-License-Identifier: MIT
"""``kvmabi run --guest``: the example finds what it should, and a script that is wrong ends with 125 and its line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ctools import CC, INCLUDE, ROOT, STRICT

from cli.readers import run_of, suite_of
from cli.schemas import validate

EXAMPLES = ROOT / "vmm_examples"
PRELUDE = "from kvmabi.guests import Mmio\n\ndef guest(cpu):\n"
DOORBELL = "    yield Mmio(0x9000000, 1, 1)\n"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def vmm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example VMM that runs a guest."""
    target = tmp_path_factory.mktemp("guest") / "streaming_guest"
    source = EXAMPLES / "streaming_guest.c"
    subprocess.run([*CC, "-std=gnu11", *STRICT, f"-I{INCLUDE}", str(source), "-o", str(target)], check=True)
    return target


@pytest.fixture
def run(vmm: Path) -> Run:
    """run(guest, *words, options=…): kvmabi run --guest of the example."""

    def started(guest: object, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kvmabi", "run", *options, "--guest", str(guest), "--", str(vmm), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return started


def test_the_example_loses_vectors_and_its_guest_notices(run: Run) -> None:
    """Saved in list order and restored so: the checker finds Z and ZA, and the guest finds none of its vectors."""
    done = run(f"{EXAMPLES / 'streaming_guest.py'}:guest")
    assert done.returncode == 99
    assert done.stdout == "the guest rings: 1\nthe guest finds 0 of 32 vectors\n"
    assert "1. lost: values destroyed by a later SVCR write: 32 registers of VM 2 vCPU 0" in done.stderr
    assert "2. lost: ZA and ZT0 refused while SVCR.ZA = 0" in done.stderr


def test_the_example_in_the_right_order_loses_nothing(run: Run) -> None:
    """SVCR first; what the guest did before the save is judged as saved, what it does later is its own."""
    done = run(f"{EXAMPLES / 'streaming_guest.py'}:guest", "--fixed")
    assert (done.returncode, done.stdout) == (0, "the guest rings: 1\nthe guest finds 32 of 32 vectors\n")
    assert "lost" not in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "guest.py: there is no such file"),
        ("def guest(cpu):\n    yield (\n", "guest.py:2: SyntaxError: '(' was never closed"),
        ("import os\nos.nothing()\n", "guest.py:2: AttributeError: module 'os' has no attribute 'nothing'"),
        ("def guests(cpu):\n    yield\n", "guest.py has no 'guest': did you mean guests"),
        ("def guest(cpu):\n    pass\n", "a guest is a generator function"),
    ],
    ids=["missing", "syntax", "import", "name", "function"],
)
def test_a_script_that_cannot_be_loaded_starts_no_vmm(run: Run, tmp_path: Path, text: str | None, message: str) -> None:
    """One line, 125, and nothing on stdout."""
    if text is not None:
        (tmp_path / "guest.py").write_text(text, "utf-8")
    done = run(f"{tmp_path / 'guest.py'}:guest")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize("options", [(), ("--report", "none")], ids=["reported", "not reported"])
def test_a_script_that_fails_later_ends_with_125_and_its_line(
    run: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The VMM sees KVM_EXIT_INTERNAL_ERROR, and its own report is printed as well."""
    (tmp_path / "guest.py").write_text(f"{PRELUDE}    yield\n    raise ValueError('no more')\n{DOORBELL}", "utf-8")
    done = run(f"{tmp_path / 'guest.py'}:guest", options=options)
    assert done.returncode == 125
    lines = [line for line in done.stderr.splitlines() if line.startswith("kvmabi: the guest's script failed")]
    assert lines == [
        f"kvmabi: the guest's script failed: {tmp_path / 'guest.py'}:5: ValueError: no more (guest of VM 1 vCPU 0)"
    ]
    assert done.stderr.count("ValueError") == 1
    assert "unexpected exit 17" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_for_machines_has_the_failure(run: Run, tmp_path: Path) -> None:
    """As JSON, as a JUnit case and a SARIF run that failed; nothing else is on stderr that would break it."""
    (tmp_path / "guest.py").write_text(f"{PRELUDE}    yield\n    raise ValueError('no more')\n", "utf-8")
    done = run(f"{tmp_path / 'guest.py'}:guest", options=("--format", "json"))
    assert done.returncode == 125
    said, brace, report = done.stderr.partition("{")
    assert said == "unexpected exit 17\n"
    assert "guest.py:5: ValueError: no more (guest of VM" in validate("run", brace + report)["failures"][0]
    for form in ("junit", "sarif"):
        path = tmp_path / form
        run(f"{tmp_path / 'guest.py'}:guest", options=("--format", form, "--output", str(path)))
        text = path.read_text("utf-8")
        assert "ValueError: no more" in text
        if form == "junit":
            assert suite_of(text).get("failures") == "1"
        else:
            assert run_of(text)["invocations"][0]["executionSuccessful"] is False
