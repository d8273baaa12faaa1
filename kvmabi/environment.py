# SPDX-License-Identifier: MIT
"""Environment variables through which the parts of kvmabi meet."""

from __future__ import annotations

from typing import Final

SOCKET_VARIABLE: Final = "KVMABI_SOCKET"
"""Set in a program under ``kvmabi run``: the server's socket. interpose/protocol.h has the same name."""

QEMU_VARIABLE: Final = "KVMABI_QEMU"
"""Set in a program under ``kvmabi run`` where arm64 programs need it: the path of qemu-user. exec.c reads it."""
LOADER_VARIABLE: Final = "KVMABI_LOADER"
"""The dynamic loader of arm64 programs, if the system has none at the usual place. exec.c reads it."""
LIBRARIES_VARIABLE: Final = "KVMABI_LIBRARIES"
"""The folders, separated by colons, in which that loader looks for libraries. exec.c reads it."""
