# SPDX-License-Identifier: MIT
"""docs/reference/blob-rules.md is what the rules say."""

from __future__ import annotations

import blob_rules


def test_the_page_is_current() -> None:
    """If this fails: python scripts/blob_rules.py."""
    assert blob_rules.PAGE.read_text("utf-8") == blob_rules.text()
