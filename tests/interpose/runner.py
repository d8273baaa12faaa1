# SPDX-License-Identifier: MIT
"""A process of its own that runs a program: python runner.py PRELOAD PROGRAM ARGS…"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from interpose.builds import bare_system
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.interpose.launch import run
from kvmabi.interpose.program import CannotRun


def main() -> int:
    """Runs the program as the command line does, without the reports."""
    try:
        return run(sys.argv[2:], bare_system(EventLog()), preload=Path(sys.argv[1])).code
    except UsageError as error:
        print(f"kvmabi: {error}", file=sys.stderr)
        return error.code if isinstance(error, CannotRun) else 125


sys.exit(main())
