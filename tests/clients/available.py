# SPDX-License-Identifier: MIT
"""Which clients are there. Tests of one that is not are skipped, with the reason that fetching it gave."""

from __future__ import annotations

import pytest
from fetch_clients.place import Place
from lacking import needs


def is_there(client: str) -> bool:
    """Whether a client was fetched."""
    return not Place(client).missing()


def needs_client(client: str) -> list[pytest.MarkDecorator]:
    """Marks for tests that run a client: they are slow, and skipped where it, or what starts it, is missing."""
    why = Place(client).missing()
    return [
        pytest.mark.slow,
        pytest.mark.skipif(bool(why), reason=f"needs the client {client} ({why})"),
        needs("qemu-aarch64", "aarch64-linux-gnu-gcc", what="qemu-user and the arm64 cross compiler"),
    ]
