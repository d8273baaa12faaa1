# SPDX-License-Identifier: MIT
"""The register file: memory that is used again must not tell what it held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi.model import state


@given(st.lists(st.integers(0, state.SIZE_BYTES - 1), min_size=1, max_size=9), st.integers(1, 2 * state.SPARE_FILES))
def test_a_new_file_is_zero_whatever_those_before_held(places: list[int], count: int) -> None:
    """Also after more files were closed than are kept."""
    files = [state.RegisterFile() for _ in range(count)]
    for file in files:
        assert file.memory[:] == bytes(state.SIZE_BYTES)
        for place in places:
            file.memory[place] = 0xA5
    for file in files:
        file.close()


def test_two_open_files_share_nothing() -> None:
    """A second close does not give the memory back a second time."""
    first = state.RegisterFile()
    first.close()
    first.close()
    second, third = state.RegisterFile(), state.RegisterFile()
    second.memory[0] = 1
    assert third.memory[0] == 0
    second.close()
    third.close()
    with pytest.raises(ValueError, match="closed"):
        assert second.memory[0:8]
