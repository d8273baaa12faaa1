# SPDX-License-Identifier: MIT
"""The KVM selftests of the newest kernel that Debian has end as the table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients import selftests
from clients.available import needs_client

CLIENT = "selftests-newest"
PROGRAMS = selftests.programs(CLIENT)
pytestmark = needs_client(CLIENT)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_ends_as_the_table_says(program: Path, tmp_path: Path) -> None:
    """A program passes, skips, needs guest code or fails as the table has it, with the findings that it names."""
    assert not selftests.difference(CLIENT, program, tmp_path)


def test_every_program_of_the_table_was_built() -> None:
    """A program that no longer compiles, or is gone, is noticed."""
    assert not selftests.not_built(CLIENT)
