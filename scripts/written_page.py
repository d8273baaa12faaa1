# SPDX-License-Identifier: MIT
"""What the scripts share that write a page of docs/: the option --check, and the comparison."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(page: Path, text: str, description: str | None) -> int:
    """Write the page, or (--check) return 1 and say so if it is not current."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="only check that the page is current")
    if not options.parse_args().check:
        page.write_text(text, "utf-8")
        return 0
    if page.exists() and page.read_text("utf-8") == text:
        return 0
    print(f"{page} is not current: run python {sys.argv[0]}", file=sys.stderr)
    return 1
