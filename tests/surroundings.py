# SPDX-License-Identifier: MIT
"""What a test run must not inherit from where it was started: ignored signals, and the system's temporary directory."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

FROM_OUTSIDE = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)
RUNTIME_FOLDER = "XDG_RUNTIME_DIR"
SHARED_SAVES = f"kvmabi-{os.getuid()}"
PYTEST_FOLDER = "PYTEST_DEBUG_TEMPROOT"


def handle_ignored_signals() -> None:
    """Let programs start with the default for signals that nohup(1) or a shell's ``&`` ignored.

    This process goes on in spite of them: exec resets a handler, but keeps what is ignored.
    """
    for number in FROM_OUTSIDE:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


def make_private_folder() -> Path:
    """A temporary directory of this run's own, for it and for all that it starts.

    Folders of tmp_path stay where pytest keeps them: it leaves the last three for a look at failures.
    """
    os.environ.setdefault(PYTEST_FOLDER, tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="kvmabi-tests-")
    os.environ["TMPDIR"] = folder
    os.environ["XDG_CACHE_HOME"] = os.path.join(folder, ".cache")
    os.environ.pop(RUNTIME_FOLDER, None)
    tempfile.tempdir = None
    return Path(folder)


def left_in(folder: Path) -> list[str]:
    """What tests left in a temporary directory.

    Hidden files are of programs that kvmabi does not answer for; the saves that commands of one shell share stay there.
    """
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return sorted(names - {SHARED_SAVES})


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
