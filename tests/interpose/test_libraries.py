# SPDX-License-Identifier: MIT
"""Where the loaders find the interposer: programs that start at the same time all find it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STARTS, LIBRARIES = 4, 100
LOOKS = """
import sys
from pathlib import Path
from kvmabi.interpose import libraries
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
missing = 0
for library in sorted(folder.glob("*.so")):
    found = libraries.for_both(library, library, folder)
    place = Path(found.replace("$PLATFORM", libraries.ARM64_PLATFORM))
    missing += sum(not place.exists() for _ in range(30))
sys.exit(min(missing, 1))
"""


def test_processes_that_start_together_find_the_links(tmp_path: Path) -> None:
    """What one process has made for its program, another that comes a moment later does not replace."""
    for number in range(LIBRARIES):
        (tmp_path / f"{number}.so").touch()
    command = [sys.executable, "-c", LOOKS, str(tmp_path)]
    pipe = subprocess.PIPE
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) for _ in range(STARTS)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        process.communicate()
    assert [process.returncode for process in started] == [0] * STARTS
