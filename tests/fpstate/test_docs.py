# SPDX-License-Identifier: MIT
"""The timelines and the table in the documentation are current."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from kvmabi.fpstate.ablation import BROKEN, LIES, NO_EFFECT, SAME, SPOTS, ablate, configurations
from kvmabi.fpstate.variants import commits, find_variant

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs/explanation/fp-ownership-commits.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (.*) \| \*\*(.*)\*\* \| (.*) \|$", re.MULTILINE)


def _rows() -> dict[str, tuple[str, str]]:
    return {bit: (verdict, text) for _, bit, _, verdict, text in ROW.findall(TABLE.read_text())}


def test_timelines_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each timeline is the output of its command."""
    monkeypatch.setattr(sys, "argv", ["fpstate_docs.py", "--check"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "scripts/fpstate_docs.py"), run_name="__main__")
    assert stop.value.code == 0


def test_table_has_every_commit_of_v6_16() -> None:
    """There is one row per commit bit, in order, and each is decided."""
    rows = _rows()
    assert tuple(rows) == find_variant("v6.16").bits
    assert "undecided" not in {verdict for verdict, _ in rows.values()}


@pytest.mark.slow
def test_table_says_what_the_search_finds() -> None:
    """Counterexamples (all in the small configurations) are the same; the script checks the exhausted rows."""
    variant = find_variant("v6.16")
    rows = _rows()
    quick = [b for b, (verdict, _) in rows.items() if verdict in (BROKEN, NO_EFFECT, SAME) and b != "kvm_keeps_tif"]
    small = configurations(variant)[: len(SPOTS)]
    results = ablate(variant, [commits()[b] for b in quick], small)
    assert {a.commit.bit: (a.verdict, a.line) for a in results} == {b: rows[b] for b in quick}


def test_lies_are_told_apart_from_bugs() -> None:
    """A commit whose removal has no observable effect is not called broken."""
    assert {b for b, (verdict, _) in _rows().items() if verdict == LIES} == {"syscall_keeps_sve"}
