# SPDX-License-Identifier: MIT
"""Typed fields out of TOML and JSON tables. An error is a UsageError of one line that names the file and the field."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from kvmabi.errors import UsageError

Table = dict[str, Any]
MAX_BYTES = 16 << 20
U64_MAX = 2**64 - 1
LISTED = 50


def load(path: str | Path, what: str, *, as_json: bool | None = None, max_bytes: int = MAX_BYTES) -> Table:
    """Returns the table in a file; ``what`` names its kind in errors.

    ``as_json``: whether it is JSON rather than TOML (None: if its name ends in .json).
    """
    file = Path(path)
    try:
        if file.stat().st_size > max_bytes:
            raise UsageError(f"{path}: larger than {max_bytes >> 20} MiB, so not {what}")
        text = file.read_text("utf-8")
        table = json.loads(text) if (file.suffix == ".json" if as_json is None else as_json) else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as {what}: {error}") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {what} is a table of names and values")
    return table


def guess(word: str, choices: Iterable[str]) -> str:
    """Returns the end of an error about an unknown word: the nearest choice, or the first LISTED choices."""
    from difflib import get_close_matches  # here: only an error needs it

    names = sorted(choices)
    close = get_close_matches(word, names, 1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known ones are {', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''}"


class Reader:
    """Reads typed fields out of a table. ``name`` is the file's; ``within`` the path of the table inside the file."""

    def __init__(self, name: str, table: Table, within: str = "") -> None:
        self.name = name
        self.table = table
        self.within = within

    def wrong(self, key: str, what: str) -> UsageError:
        """Returns the error for a field."""
        return UsageError(f"{self.name}: {self.within}{key}: {what}")

    def only(self, allowed: Iterable[str], within: str = "") -> None:
        """Raises UsageError for a key, of the table or of the one in the field ``within``, that is not ``allowed``."""
        names = frozenset(allowed)
        table, prefix = (self.sub(within), f"{within}.") if within else (self.table, "")
        for key in table:
            if key not in names:
                raise self.wrong(f"{prefix}{key}", f"unknown key: {guess(str(key), names)}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(key, default, "a string")
        if not isinstance(value, str):
            raise self.wrong(key, "must be a string")
        return value

    def one_of(self, key: str, choices: Iterable[str], default: str | None = None) -> str:
        """A string that is one of some choices."""
        value, names = self.text(key, default), frozenset(choices)
        if value not in names:
            raise self.wrong(key, f"{value!r} is not a choice: {guess(value, names)}")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """A truth value."""
        value = self._value(key, default, "true or false")
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def number(self, key: str, default: int | None = None, *, most: int = U64_MAX) -> int:
        """A whole number from 0 to ``most``."""
        return self.as_number(key, self._value(key, default, f"a whole number from 0 to {most:#x}"), most)

    def as_number(self, key: str, value: object, most: int = U64_MAX) -> int:
        """Returns ``value`` as a whole number from 0 to ``most``; it may be a string such as "0x10"."""
        if isinstance(value, str):
            try:
                value = int(value, 0)
            except ValueError:
                raise self.wrong(key, f"{value!r} is not a number") from None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.wrong(key, f"must be a whole number from 0 to {most:#x}")
        return value

    def items(self, key: str) -> list[Any]:
        """An array; an absent one is empty."""
        value = self.table.get(key, [])
        if not isinstance(value, list):
            raise self.wrong(key, "must be an array")
        return value

    def texts(self, key: str, allowed: Iterable[str] | None = None) -> tuple[str, ...]:
        """An array of strings, all of them ``allowed`` (None: any strings); an absent one is empty."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(key, "must be an array of strings")
        names = frozenset(values if allowed is None else allowed)
        for value in values:
            if value not in names:
                raise self.wrong(key, f"{value!r} is unknown: {guess(value, names)}")
        return tuple(values)

    def sub(self, key: str) -> Table:
        """A table; an absent one is empty."""
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "must be a table")
        return value

    def reader(self, key: str) -> Self:
        """The reader of a table; an absent one is empty."""
        return type(self)(self.name, self.sub(key), f"{self.within}{key}.")

    def readers(self) -> dict[str, Self]:
        """The readers of all fields, each of which is a table."""
        return {key: self.reader(key) for key in self.table}

    def rows(self, key: str) -> list[Self]:
        """The readers of an array of tables; an absent one is empty."""
        rows = self.items(key)
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise self.wrong(f"{key}[{number}]", "must be a table")
        return [type(self)(self.name, row, f"{self.within}{key}[{number}].") for number, row in enumerate(rows, 1)]

    def _value(self, key: str, default: object, what: str) -> object:
        value = self.table.get(key, default)
        if value is None:
            raise self.wrong(key, f"is missing: must be {what}")
        return value
