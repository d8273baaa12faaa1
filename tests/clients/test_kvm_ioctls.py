# SPDX-License-Identifier: MIT
"""The unit tests of rust-vmm's kvm-ioctls, each in a process of its own, end as the table says."""

from __future__ import annotations

from pathlib import Path

import pytest
from fetch_clients.place import Place

from clients import blessed, running
from clients.available import is_there, needs_client
from clients.blessed import Outcome

CLIENT = "kvm-ioctls"
PROGRAM = Place(CLIENT).path / "tests"
TABLE = blessed.tables()[CLIENT]
NAMES = (Place(CLIENT).path / "names").read_text("utf-8").split() if is_there(CLIENT) else ["none"]
pytestmark = needs_client(CLIENT)


@pytest.mark.parametrize("name", NAMES)
def test_ends_as_the_table_says(name: str, tmp_path: Path) -> None:
    """Tests pass unless the table names and explains an exception, which then must not pass."""
    command = [PROGRAM, "--exact", name, "--test-threads=1"]
    result = running.run(command, tmp_path, kernel=TABLE.kernel, host=TABLE.host)
    seen = blessed.outcome(result)
    assert seen is TABLE.outcomes.get(name, Outcome.PASS), result.output[-2000:]
    assert seen is not Outcome.PASS or "1 passed" in result.output
    assert not result.report["findings"]


def test_the_table_names_tests_that_exist() -> None:
    """An exception for a test that is gone is noticed."""
    assert set(TABLE.outcomes) <= set(NAMES)


def test_every_exception_is_explained() -> None:
    """No exception stands without a reason."""
    assert set(TABLE.outcomes) == set(TABLE.reasons)
