# SPDX-License-Identifier: MIT
"""What every test has in common: what it starts ends with it, and nothing is left in the temporary directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import resource_tracker

import pytest
import surroundings
from hypothesis import settings
from lacking import closing_line
from processes import Marks, Processes, StartProcess

# A busy machine is not a failure: time is measured in benchmarks/.
settings.register_profile("kvmabi", deadline=None)
settings.load_profile("kvmabi")

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
surroundings.handle_ignored_signals()
FOLDER = None if IS_WORKER else surroundings.make_private_folder()
"""The temporary directory, in the process that owns it: workers inherit it in TMPDIR."""
resource_tracker.ensure_running()  # before there are marks: it outlives the test that would start it
MARKS = Marks()
MARKS.watch(str(FOLDER or ""))
LEFT = pytest.StashKey[list[str]]()


@pytest.fixture(autouse=True)
def processes() -> Iterator[Processes]:
    """Ends every process that the test has started, also those that it does not wait for."""
    MARKS.next_test()
    started = Processes(MARKS)
    yield started
    started.end()


@pytest.fixture
def start_process(processes: Processes) -> StartProcess:
    """start_process(program, *args, **options): a Popen in a session of its own that ends with the test."""
    return processes.start


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves files in the temporary directory fails."""
    if FOLDER is None:
        return
    left = surroundings.left_in(FOLDER) if FOLDER.is_dir() else []
    session.config.stash[LEFT] = left
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Names, below all else, what tests left in the temporary directory and the tools that were missing."""
    yield
    left = config.stash.get(LEFT, [])
    if left:
        terminalreporter.line(f"left in the temporary directory: {', '.join(left)}", red=True)
    reports = terminalreporter.stats.get("skipped", [])
    line = closing_line(report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple))
    if line:
        terminalreporter.line(line)


def pytest_unconfigure() -> None:
    """Removes the temporary directory."""
    if FOLDER is not None:
        surroundings.remove(FOLDER)
