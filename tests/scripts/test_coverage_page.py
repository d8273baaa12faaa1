# SPDX-License-Identifier: MIT
"""The page of what is modelled follows the code's tables, and its texts name what exists."""

from __future__ import annotations

import coverage_page

from kvmabi import uapi


def test_the_page_is_current() -> None:
    """If this fails: python scripts/coverage_page.py."""
    assert coverage_page.PAGE.read_text("utf-8") == coverage_page.page()


def test_every_ioctl_of_the_headers_is_there() -> None:
    """Those with a struct are all of IOCTL_ARGUMENTS; a few without one stand for the rest."""
    names = {name for name, _ in coverage_page.ioctls()}
    assert set(uapi.IOCTL_ARGUMENTS) <= names
    assert {"KVM_CREATE_VM", "KVM_RUN", "KVM_GET_STATS_FD", "KVM_NMI"} <= names


def test_texts_are_of_ioctls_that_have_an_entry() -> None:
    """No text is left over from an ioctl that went away."""
    words = coverage_page.texts()
    entries = {name for file in coverage_page.FILES.values() for name, _ in file.table.values()}
    assert set(words["stored"]) | set(words["refused"]) <= entries
