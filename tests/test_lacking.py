# SPDX-License-Identifier: MIT
"""The closing line of a test run names the tools for lack of which tests were skipped."""

from __future__ import annotations

import pytest
from lacking import closing_line, needs, tool_of


@pytest.mark.parametrize(
    ("reason", "tool"),
    [
        ("needs a C++ compiler (g++)", "a C++ compiler"),
        ("Skipped: needs cpio", "cpio"),
        ("no aarch64-linux-gnu-gcc: install gcc-aarch64-linux-gnu", "an arm64 cross compiler"),
        ("there is no qemu-system-aarch64", "qemu-system-aarch64"),
        ("there is no dpkg-deb", "dpkg-deb"),
        ("there is no cpio to read it with", "cpio"),
        ("KVMABI_KERNEL_IMAGE names no arm64 kernel: make oracle fetches one", "an arm64 kernel image"),
        ("no browser is here", "a browser"),
        ("no static C library here", "a static C library"),
        ("only root can give a program away", None),
        ("the host has no AArch32", None),
    ],
)
def test_reasons(reason: str, tool: str | None) -> None:
    """A tool is recognised in the reasons that tests give; rights and hosts are not tools."""
    assert tool_of(reason) == tool


def test_line() -> None:
    """The tool that was missed most comes first; without any there is no line."""
    reasons = ["needs b", "needs an a (x)", "needs an a (y)", "root looks into every folder"]
    assert closing_line(reasons) == "skipped for lack of: an a (2 tests), b (1)"
    assert closing_line(["needs b"]) == "skipped for lack of: b (1 test)"
    assert closing_line(["root looks into every folder"]) == ""


def test_needs() -> None:
    """Only programs that are missing are named, and only then is a test skipped."""
    here = needs("sh", what="a shell")
    assert here.mark.args == (False,)
    missing = needs("sh", "no-such-program", what="a shell")
    assert (missing.mark.args, missing.mark.kwargs) == ((True,), {"reason": "needs a shell (no-such-program)"})
