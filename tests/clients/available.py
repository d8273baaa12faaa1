# SPDX-License-Identifier: MIT
"""Which clients are there. Tests of one that is not are skipped, with the reason that fetching it gave."""

from __future__ import annotations

import pytest
from fetch_clients.place import Place
from lacking import needs

from kvmabi.device.vgic import VgicFile


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


def needs_vgic_registers() -> pytest.MarkDecorator:
    """Skips a test of a client that cannot do without the registers of a vGIC, where kvmabi does not model all."""
    unmodelled = VgicFile.unmodelled_groups
    return pytest.mark.skipif(bool(unmodelled), reason=f"kvmabi does not model groups {sorted(unmodelled)} of a vGIC")
