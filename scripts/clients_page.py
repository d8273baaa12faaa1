# SPDX-License-Identifier: MIT
"""Write docs/reference/clients.md, or check that it is current.

    PYTHONPATH=tests:scripts python scripts/clients_page.py [--check]

The results are those that tests/clients compares with. Exits with 0, or with 1 if --check finds a difference.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import written_page
from clients.blessed import FOLDER, Blessed, Outcome, tables

PAGE = Path(__file__).parent.parent / "docs/reference/clients.md"
HEAD = """# Real programs that run on kvmabi

Written by `scripts/clients_page.py`; do not edit. These arm64 programs, built by others for a real kernel, run
unmodified under `kvmabi run`. `make clients` fetches them from Debian and PyPI into `build/clients` and runs them; what
cannot be had is skipped. A result that differs from the one listed here fails, also one that is better.
"""
MEANINGS = {
    Outcome.PASS: "pass",
    Outcome.SKIP: "skip",
    Outcome.GUEST: "wait in `KVM_RUN` for guest code, which does not run",
    Outcome.FAIL: "fail",
}


def page() -> str:
    """The page."""
    vmms = tomllib.loads((FOLDER / "vmms.toml").read_text("utf-8"))
    rows = [
        *(
            f"| {one['text']} | {one['seen']} | `{one['kernel']}` | {one['runs']} | {one['result']} |"
            for one in vmms.values()
        ),
        *(_row(table) for table in tables().values()),
    ]
    head = ["| client | version seen | kernel | what runs | result |", "|---|---|---|---|---|"]
    parts = [HEAD, *head, *rows, ""]
    for table in tables().values():
        parts += _details(table)
    return "\n".join(parts)


def _row(table: Blessed) -> str:
    counts = Counter(table.outcomes.values())
    what = ", ".join(f"{counts[outcome]} {words}" for outcome, words in MEANINGS.items() if counts[outcome])
    rest = what if counts[Outcome.PASS] else f"all pass but these: {what}"
    return f"| {table.text} | {table.seen} | `{table.kernel}` | each program or test by itself | {rest} |"


def _details(table: Blessed) -> Iterator[str]:
    yield from (f"## {table.text[:1].upper()}{table.text[1:]}", "", "| test | result | why |", "|---|---|---|")
    order = list(MEANINGS)
    for name, outcome in sorted(table.outcomes.items(), key=lambda item: (order.index(item[1]), item[0])):
        found = f"; finding: {', '.join(table.findings[name])}" if name in table.findings else ""
        yield f"| `{name}` | {outcome} | {table.reasons.get(name, '')}{found} |"
    yield ""


if __name__ == "__main__":
    raise SystemExit(written_page.main(PAGE, page(), __doc__))
