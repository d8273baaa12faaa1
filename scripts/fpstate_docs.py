# SPDX-License-Identifier: MIT
"""Write the timelines in docs/explanation/fp-ownership.md, or check that they are current.

    python scripts/fpstate_docs.py [--check]

Each "<!-- timeline: BUG VARIANT -->" is followed by the Mermaid and the text output of
``kvmabi fpstate bug BUG --on VARIANT``. Exits with 0, or with 1 if --check finds a difference.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from kvmabi.fpstate.catalogue import find_bug, search
from kvmabi.fpstate.render.mermaid import mermaid
from kvmabi.fpstate.render.text import text
from kvmabi.fpstate.variants import find_variant

PAGE = Path(__file__).parent.parent / "docs/explanation/fp-ownership.md"
MARK = re.compile(r"<!-- timeline: (\S+) (\S+) -->\n(?:\n```mermaid\n.*?```\n\n```text\n.*?```\n)?", re.DOTALL)


def timeline(marker: re.Match[str]) -> str:
    """A marker and the timeline that follows it."""
    bug, kernel = marker[1], marker[2]
    trace = search(find_bug(bug), find_variant(kernel)).trace
    if trace is None:
        raise SystemExit(f"{bug} does not reproduce on {kernel}")
    return f"<!-- timeline: {bug} {kernel} -->\n\n```mermaid\n{mermaid(trace)}```\n\n```text\n{text(trace)}```\n"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args()
    old = PAGE.read_text()
    new = MARK.sub(timeline, old)
    if args.check:
        return int(old != new)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
