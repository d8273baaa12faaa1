# SPDX-License-Identifier: MIT
"""Profile files: built-in ones by name, the user's own by path."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from kvmabi import regid, tables
from kvmabi.errors import UsageError
from kvmabi.tables import Table

PACKAGE = "kvmabi.profiles"


def builtin_names(kind: str) -> list[str]:
    """The names of the built-in profiles of a kind ("hosts", "kernels"), sorted."""
    return list(_builtin_names(kind))


@cache
def _builtin_names(kind: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _folder(PACKAGE).joinpath(kind).glob("*.toml")))


def builtin_table(name: str, package: str = PACKAGE) -> Table:
    """A table that ships with kvmabi, by its path below a package."""
    return tomllib.loads(_folder(package).joinpath(name).read_text("utf-8"))


def builtin(name: str, package: str = PACKAGE) -> Reader:
    """The reader of a table that ships with kvmabi."""
    return Reader(name, builtin_table(name, package))


def read(kind: str, name: str) -> tuple[Table, bool]:
    """Returns a profile as a table, and whether it was a JSON file; the UsageError names the choices."""
    if not isinstance(name, str):
        raise UsageError(f"{name!r} is not a {_singular(kind)}: take {_choices(kind)}")
    if name in builtin_names(kind):
        return builtin_table(f"{kind}/{name}.toml"), False
    path = Path(name)
    if path.suffix not in (".json", ".toml"):
        raise UsageError(unknown(kind, name))
    return tables.load(name, "a profile"), path.suffix == ".json"


def unknown(kind: str, name: str) -> str:
    """The error text for an unknown name."""
    guess = tables.guess(name, builtin_names(kind))
    hint = f" ({guess})" if guess.startswith("did") else ""
    return f"no {_singular(kind)} {name!r}{hint}: take {_choices(kind)}"


def _folder(package: str) -> Path:
    """The folder of a package of kvmabi's: a real one, since programs load libraries from the package."""
    return Path(__file__).parents[2].joinpath(*package.split("."))


def _singular(kind: str) -> str:
    return kind.removesuffix("s")


def _choices(kind: str) -> str:
    return f"one of {', '.join(builtin_names(kind))}, or a .toml or .json file"


class Reader(tables.Reader):
    """Reads fields that name registers, too."""

    def register(self, field: str, text: str) -> int:
        """Returns the id of a register that a field names."""
        try:
            return regid.parse(text)
        except UsageError as error:
            raise self.wrong(field, str(error)) from None
