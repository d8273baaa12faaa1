# SPDX-License-Identifier: MIT
"""Environment variables through which the parts of kvmabi meet."""

from __future__ import annotations

from typing import Final

SOCKET_VARIABLE: Final = "KVMABI_SOCKET"
"""Set in a program under ``kvmabi run``: the server's socket. interpose/protocol.h has the same name."""
