# SPDX-License-Identifier: MIT
"""A build of the kernel's KVM selftests, and its table of results."""

from __future__ import annotations

from pathlib import Path

from fetch_clients.place import Place

from clients import blessed, running
from clients.available import is_there

NOT_THERE = Path("none")
HELPERS = "lib"
"""The folder of a build that has no tests."""


def programs(client: str) -> list[Path]:
    """The programs that were built; a placeholder if the client was not fetched."""
    if not is_there(client):
        return [NOT_THERE]
    found = (path for path in (Place(client).path / "bin").rglob("*") if path.is_file() and HELPERS not in path.parts)
    return sorted(path for path in found if not path.suffix)


def difference(client: str, program: Path, folder: Path) -> str:
    """Run a program; returns how its result differs from the table's, "" if it does not."""
    table = blessed.tables()[client]
    command = [program, *table.arguments.get(program.name, [])]
    result = running.run(command, folder, kernel=table.kernel, host=table.host)
    return blessed.difference(client, program.name, result)


def not_built(client: str) -> set[str]:
    """The programs of the table that the build lacks."""
    return set(blessed.tables()[client].outcomes) - {program.name for program in programs(client)}
