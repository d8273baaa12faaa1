# SPDX-License-Identifier: MIT
"""The command line, as in tests/cli."""

from cli.conftest import kvmabi

__all__ = ["kvmabi"]
