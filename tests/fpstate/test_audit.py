# SPDX-License-Identifier: MIT
"""Backport audits: lists are parsed as git prints them, and the answers come from searches."""

import pytest

from kvmabi.fpstate.audit import Audit, audit, read_list
from kvmabi.fpstate.variants import find_variant

BLUEFIELD = """
# the seven patches on 5.15
0000000000a1 arm64/sme: Implement ZA context switching
0000000000a2 arm64/fp: Use a struct to pass data to fpsimd_bind_state_to_cpu()
0000000000a3 arm64: fpsimd: Drop unneeded 'busy' flag
0000000000a4 arm64: fpsimd: Preserve/restore kernel mode NEON at context switch
0000000000a5 arm64: fpsimd: Implement lazy restore for kernel mode FPSIMD
0000000000a6 arm64: fpsimd: Bring cond_yield asm macro in line with new rules
0000000000a7 arm64/fpsimd: Avoid erroneous elide of user state reload
"""


@pytest.fixture(scope="module")
def bluefield() -> Audit:
    """The audit of the seven patches, searched once."""
    return audit(find_variant("v5.15"), read_list(BLUEFIELD))


def test_lists_in_every_form() -> None:
    """Upstream ids, foreign ids with titles, bare titles, mail subjects, decorations."""
    text = """e92bee9f861b
* e92bee9 (tag: v6.10) arm64/fpsimd: Avoid erroneous elide of user state reload
deadbeef0123 arm64/fpsimd: Avoid erroneous elide of user state reload
deadbeef0123 (HEAD -> fix) arm64/fpsimd: Avoid erroneous elide of user state reload
[PATCH 7/7] arm64/fpsimd: Avoid erroneous elide of user state reload
BACKPORT: arm64/fpsimd: Avoid erroneous elide of user state reload
"""
    assert {e.commit.bit if e.commit else None for e in read_list(text)} == {"flush_after"}
    assert [e.commit for e in read_list("deadbeef0123 mm: something else")] == [None]


@pytest.mark.slow
def test_bluefield_backport_says_what_patch_7_mends(bluefield: Audit) -> None:
    """With all seven there is no C1 and no C5; without the seventh C1 reproduces, with a trace."""
    report = bluefield
    assert report.unknown == ()
    remaining = {f.bug.id for f in report.remaining}
    assert remaining == {"A1", "E1", "H3"}
    mended = {c.bit: {f.bug.id for f in there} for c, there in report.mended}
    assert mended["flush_after"] == {"C1", "C1x", "C1k"}
    assert mended["kern"] == {"A2"}
    assert all(f.trace is not None and f.trace.observation for _, there in report.mended for f in there)


@pytest.mark.slow
def test_remedies_name_the_commit_that_removes_what_remains(bluefield: Audit) -> None:
    """Remedies do not include commits that replace the bug with another one."""
    remedies = {bug: [c.id for c in helps] for bug, helps in bluefield.remedies}
    assert remedies == {"A1": ["751ecf6afd65"], "E1": ["8c462d56487e"], "H3": ["59419f10045b"]}


@pytest.mark.slow
def test_clean_backport_has_nothing_left() -> None:
    """6.12 with the commits of 6.14 and the fixes for vector length changes and clone has no catalogued bug."""
    ids = "fbc7e61195e2\n8eca7f6d5100\n459f059be702\n59419f10045b\n49ce484187f7\ne0cb0f26594c\n"
    assert audit(find_variant("v6.12"), read_list(ids)).remaining == ()
