# SPDX-License-Identifier: MIT
"""Tests that need a tool are skipped where it is missing, and one closing line of the run names what was missing."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable

import pytest

NEEDS = re.compile(r"^needs (?P<what>[^(]+?)(?: \(.*\))?$")
TOOLS = (
    (r"qemu-system-aarch64", "qemu-system-aarch64"),
    (r"aarch64-linux-gnu-gcc|arm64 (?:cross )?compiler", "an arm64 cross compiler"),
    (r"KVMABI_KERNEL_IMAGE|arm64 kernel", "an arm64 kernel image"),
    (r"linux-libc-dev-arm64-cross", "linux-libc-dev-arm64-cross"),
    (r"browser|chromium", "a browser"),
    (r"address sanitizer", "the address sanitizer"),
    (r"static C library", "a static C library"),
    (r"interposer was not built", "the built interposer"),
)
"""What a reason to skip is about that does not begin with "needs": a pattern, and how the closing line names it."""
THERE_IS_NO = re.compile(r"^there is no (?P<what>[\w.+-]+)\b")


def needs(*programs: str, what: str = "") -> pytest.MarkDecorator:
    """Skips a test unless every one of these programs is installed; ``what`` names them in the closing line."""
    missing = ", ".join(program for program in programs if shutil.which(program) is None)
    reason = f"needs {what} ({missing})" if what else f"needs {missing}"
    return pytest.mark.skipif(bool(missing), reason=reason)


def tool_of(reason: str) -> str | None:
    """The tool for lack of which a test was skipped; None if the reason is another, such as the user's rights."""
    reason = reason.removeprefix("Skipped: ")
    if named := NEEDS.match(reason):
        return named["what"]
    for pattern, tool in TOOLS:
        if re.search(pattern, reason):
            return tool
    named = THERE_IS_NO.match(reason)
    return named["what"] if named else None


def closing_line(reasons: Iterable[str]) -> str:
    """What tests were skipped for lack of, the most often missed tool first; "" if nothing was missing."""
    counts = Counter(tool for tool in map(tool_of, reasons) if tool is not None).most_common()
    if not counts:
        return ""
    (first, count), *rest = counts
    parts = [f"{first} ({count} test{'s' if count > 1 else ''})", *(f"{tool} ({number})" for tool, number in rest)]
    return f"skipped for lack of: {', '.join(parts)}"
