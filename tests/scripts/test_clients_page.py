# SPDX-License-Identifier: MIT
"""The page of real clients is current, and every exception in its tables is explained."""

from __future__ import annotations

import clients_page
import pytest
from clients.blessed import Outcome, tables


def test_page_is_current() -> None:
    """If this fails: PYTHONPATH=tests:scripts python scripts/clients_page.py."""
    assert clients_page.PAGE.read_text("utf-8") == clients_page.page()


@pytest.mark.parametrize("client", tables())
def test_exceptions_are_explained(client: str) -> None:
    """What is skipped or fails has a reason."""
    table = tables()[client]
    unexplained = {name for name, outcome in table.outcomes.items() if outcome in (Outcome.SKIP, Outcome.FAIL)}
    assert unexplained <= set(table.reasons)
