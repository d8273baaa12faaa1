# SPDX-License-Identifier: MIT
"""The matrix of bugs by kernels agrees with the golden file and with the sources."""

from pathlib import Path

import pytest

from kvmabi.fpstate.catalogue import bugs
from kvmabi.fpstate.matrix import Matrix, matrix
from kvmabi.fpstate.variants import find_commit

GOLDEN = Path(__file__).parent / "golden/matrix.txt"


@pytest.fixture(scope="module")
def table() -> Matrix:
    """The matrix, searched once."""
    return matrix()


@pytest.mark.slow
def test_matrix_is_the_golden_one(table: Matrix) -> None:
    """Every cell is as recorded, with the length of the shortest counterexample."""
    assert table.text() == GOLDEN.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("bug", list(bugs()))
def test_bug_is_exactly_where_the_sources_say(table: Matrix, bug: str) -> None:
    """Reproduced on each variant of its window, absent (by exhaustion) on every other."""
    reproducing = {c for c in table.columns if table.cells[bug, c][0] in "Rr"}
    assert reproducing == set(bugs()[bug].present_in)


@pytest.mark.slow
def test_nothing_is_undecided(table: Matrix) -> None:
    """Every absence was exhausted."""
    assert "?" not in table.cells.values()


def test_fixes_are_in_the_table() -> None:
    """Each bug's fixing commits are commit bits, so that an audit can name them."""
    for bug in bugs().values():
        assert all(find_commit(c) for c in bug.fixed_by)
