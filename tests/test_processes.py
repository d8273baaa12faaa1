# SPDX-License-Identifier: MIT
"""A test run leaves no process and no file behind, however a test in it ends. Each test here runs pytest on tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ctools import ROOT
from processes import StartProcess, marked

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 60
RUNNER = ROOT / "tests" / "interpose" / "runner.py"
PYTEST = (sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "conftest")
LEAVES_A_DAEMON = """
import os, signal, sys, time
from pathlib import Path

ALIVE = Path({alive!r})

def test_program(start_process, preload):
    script = f"setsid sh -c 'echo >{{ALIVE}}; sleep 600' & sleep 600"
    start_process(sys.executable, {runner!r}, preload, "sh", "-c", script)
    os.spawnlp(os.P_NOWAIT, "setsid", "setsid", "sleep", "600")
    while not ALIVE.exists():
        time.sleep(0.01)
    {ending}
"""
ENDINGS = {
    "fails": "assert False",
    "interrupted": "raise KeyboardInterrupt",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
}

RunPytest = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_pytest(tmp_path: Path, start_process: StartProcess) -> RunPytest:
    """run_pytest(code, *options): run the tests in ``code`` with these tests' fixtures and guards."""
    (tmp_path / "inner").mkdir()

    def run(code: str, *options: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "test_inner.py"
        file.write_text(code)
        environment = os.environ | {
            "PYTHONPATH": str(ROOT / "tests"),
            "TMPDIR": str(tmp_path / "inner"),
            "PYTEST_DEBUG_TEMPROOT": str(tmp_path),
        }
        environment.pop("PYTEST_XDIST_WORKER", None)
        command = [*before, *PYTEST, "-q", "-p", "no:cacheprovider", *options, file]
        process = start_process(
            *command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _nothing = process.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess(command, process.returncode, output)

    return run


def until(fact: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("ending", "workers"), [("fails", 0), ("interrupted", 0), ("killed", 0), ("killed", 1)])
def test_nothing_goes_on(
    run_pytest: RunPytest, request: pytest.FixtureRequest, tmp_path: Path, ending: str, workers: int
) -> None:
    """The runner, its program, a daemon of that and a forgotten child end with the test, or with its killed worker."""
    alive = tmp_path / "alive"
    code = LEAVES_A_DAEMON.format(alive=str(alive), runner=str(RUNNER), ending=ENDINGS[ending])
    done = run_pytest(code, "-n", str(workers), "-p", "interpose.conftest")
    assert alive.exists(), done.stdout
    assert done.returncode != 0, done.stdout
    mark = request.getfixturevalue("processes").mark
    until(lambda: not marked(mark))
    until(lambda: not list((tmp_path / "inner").iterdir()))


def test_ended_test_by_test(run_pytest: RunPytest) -> None:
    """A failed test's processes have ended when the next test begins; those of a module's fixture go on."""
    code = """
import subprocess, pytest
from pathlib import Path

pids = []

@pytest.fixture(scope="module")
def helper():
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()

def test_one(helper, start_process):
    pids.append(start_process("sleep", "600").pid)
    assert False

def test_two(helper):
    assert not Path(f"/proc/{pids[0]}").exists()
    assert helper.poll() is None
"""
    assert "1 failed, 1 passed" in run_pytest(code).stdout


def test_last_words(run_pytest: RunPytest, tmp_path: Path) -> None:
    """What tests left in the temporary directory makes a run fail, is named and removed; missing tools are named."""
    code = """
import tempfile
from lacking import needs

def test_leaves():
    tempfile.mkdtemp(prefix="left-")

@needs("no-such-program", what="a program")
def test_skipped():
    pass
"""
    done = run_pytest(code, "-n", "1")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    last = done.stdout.splitlines()[-3:]
    assert any(line.startswith("left in the temporary directory: left-") for line in last)
    assert "skipped for lack of: a program (1 test)" in last
    until(lambda: not list((tmp_path / "inner").iterdir()))


def test_ignored_signals(run_pytest: RunPytest) -> None:
    """Programs that tests start have default signal dispositions, also if the run was started in the background."""
    code = """
import subprocess

def test_ignored(start_process):
    done = subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True)
    assert int(done.stdout.split()[1], 16) & 0b111 == 0
"""
    ignoring = ("sh", "-c", "trap '' INT HUP QUIT; exec \"$@\"", "sh")
    done = run_pytest(code, "-n", "1", before=ignoring)
    assert done.returncode == 0, done.stdout
