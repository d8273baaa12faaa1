# SPDX-License-Identifier: MIT
"""Finding and reading profile files: built-in ones by name, the user's own by path; each error names file and field."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from kvmabi import regid
from kvmabi.errors import UsageError

MAX_BYTES = 16 << 20
Table = dict[str, Any]


def builtin_names(kind: str) -> list[str]:
    """The names of the built-in profiles of a kind ("hosts", "kernels"), sorted."""
    folder = files("kvmabi.profiles").joinpath(kind)
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def builtin_table(name: str) -> Table:
    """A table that ships with the package, by its path below kvmabi/profiles."""
    return tomllib.loads(files("kvmabi.profiles").joinpath(name).read_text("utf-8"))


def read(kind: str, name: str) -> tuple[Table, bool]:
    """A profile as a table, and whether it was a JSON file; UsageError names the choices or what is wrong."""
    if name in builtin_names(kind):
        return builtin_table(f"{kind}/{name}.toml"), False
    path = Path(name)
    if path.suffix not in (".json", ".toml"):
        raise UsageError(unknown(kind, name))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{name}: larger than {MAX_BYTES >> 20} MiB, so no profile")
        text = path.read_text("utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{name}: cannot be read as a profile: {error}") from None
    if not isinstance(table, dict):
        raise UsageError(f"{name}: a profile is a table of names and values")
    return table, path.suffix == ".json"


def unknown(kind: str, name: str) -> str:
    """The line for a name that no profile has."""
    names = builtin_names(kind)
    close = get_close_matches(name, names, 1)
    guess = f" (did you mean {close[0]}?)" if close else ""
    return f"no {kind.removesuffix('s')} {name!r}{guess}: take one of {', '.join(names)}, or a .toml or .json file"


class Reader:
    """Reads typed fields out of a profile's table; a field that is not as it should be is a UsageError."""

    def __init__(self, name: str, table: Table) -> None:
        self.name = name
        self.table = table

    def wrong(self, key: str, what: str) -> UsageError:
        """The error for a field."""
        return UsageError(f"{self.name}: {key}: {what}")

    def only(self, known: Iterable[str], within: str = "") -> None:
        """Refuse keys of the table, or of the one in the field ``within``, that nothing would read."""
        keys = sorted(known)
        table, prefix = (self.sub(within), f"{within}.") if within else (self.table, "")
        for key in table:
            if key not in keys:
                close = get_close_matches(str(key), keys, 1)
                guess = f"did you mean {close[0]}?" if close else f"known ones are {', '.join(keys)}"
                raise self.wrong(f"{prefix}{key}", f"unknown key: {guess}")

    def register(self, field: str, text: str) -> int:
        """The id of a register named in a field."""
        try:
            return regid.parse(text)
        except UsageError as error:
            raise self.wrong(field, str(error)) from None

    def text(self, key: str, default: str | None = None) -> str:
        """A string field."""
        value = self.table.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "must be a string")
        return value

    def number(self, key: str, default: int | None = None, *, most: int = 2**64 - 1) -> int:
        """A whole number from 0 to ``most``."""
        return self.as_number(key, self.table.get(key, default), most)

    def as_number(self, key: str, value: object, most: int = 2**64 - 1) -> int:
        """``value`` as a whole number from 0 to ``most``; a string may say it in hex."""
        if isinstance(value, str):
            try:
                value = int(value, 0)
            except ValueError:
                raise self.wrong(key, f"{value!r} is no number") from None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.wrong(key, f"must be a whole number from 0 to {most:#x}")
        return value

    def sub(self, key: str) -> Table:
        """A table field; absent is empty."""
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "must be a table")
        return value

    def items(self, key: str) -> list[Any]:
        """An array field; absent is empty."""
        value = self.table.get(key, [])
        if not isinstance(value, list):
            raise self.wrong(key, "must be an array")
        return value
