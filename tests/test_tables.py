# SPDX-License-Identifier: MIT
"""Typed fields of tables: what is right is returned, what is wrong is one line with file, path and hint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvmabi.errors import UsageError
from kvmabi.tables import Reader, guess, load

TABLE = {
    "text": "a",
    "number": 3,
    "hex": "0x10",
    "flag": True,
    "texts": ["a", "b"],
    "sub": {"deep": {"text": 1}},
    "rows": [{"flag": False}, {"flag": "no"}],
}


def test_fields_have_their_types() -> None:
    """Each kind of field is read; defaults stand in for absent ones."""
    read = Reader("f", TABLE)
    assert (read.text("text"), read.text("none", "x")) == ("a", "x")
    assert (read.number("number"), read.number("hex"), read.number("none", 7)) == (3, 16, 7)
    assert (read.flag("flag"), read.flag("none", False)) == (True, False)
    assert (read.texts("texts"), read.texts("none")) == (("a", "b"), ())
    assert read.rows("rows")[0].flag("flag") is False
    assert read.reader("none").table == {}
    assert read.items("none") == []
    assert read.one_of("text", ("a", "b")) == "a"


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda read: read.text("number"), "f: number: must be a string"),
        (lambda read: read.text("nothing"), "f: nothing: is missing: must be a string"),
        (lambda read: read.number("text"), "f: text: 'a' is not a number"),
        (lambda read: read.number("flag"), "f: flag: must be a whole number from 0 to 0xffffffffffffffff"),
        (lambda read: read.number("number", most=2), "f: number: must be a whole number from 0 to 0x2"),
        (lambda read: read.flag("number"), "f: number: must be true or false"),
        (lambda read: read.texts("rows"), "f: rows: must be an array of strings"),
        (lambda read: read.texts("texts", ("a", "bb")), "f: texts: 'b' is unknown: did you mean bb?"),
        (lambda read: read.items("text"), "f: text: must be an array"),
        (lambda read: read.sub("text"), "f: text: must be a table"),
        (lambda read: read.rows("texts"), "f: texts[1]: must be a table"),
        (lambda read: read.rows("rows")[1].flag("flag"), "f: rows[2].flag: must be true or false"),
        (lambda read: read.reader("sub").reader("deep").text("text"), "f: sub.deep.text: must be a string"),
        (lambda read: read.reader("sub").only(("deap",)), "f: sub.deep: unknown key: did you mean deap?"),
        (lambda read: read.one_of("text", ("x", "y")), "f: text: 'a' is not a choice: known ones are x, y"),
    ],
)
def test_an_error_names_file_and_field(ask: Callable[[Reader], object], error: str) -> None:
    """The path names the field, however deep it is."""
    with pytest.raises(UsageError) as raised:
        ask(Reader("f", TABLE))
    assert str(raised.value) == error


@pytest.mark.parametrize("name", ["a.toml", "a.json", "missing.json"])
def test_a_file_that_is_not_a_table_is_a_usage_error(tmp_path: Path, name: str) -> None:
    """One line that names the file, for garbage and for a missing file."""
    if "missing" not in name:
        (tmp_path / name).write_text("[1, 2")
    with pytest.raises(UsageError, match="cannot be read as a thing: ") as raised:
        load(tmp_path / name, "a thing")
    assert str(raised.value).startswith(str(tmp_path / name))


def test_many_choices_are_not_all_listed() -> None:
    """An error stays a line that can be read."""
    assert guess("?", map(str, range(50))).endswith(", 9")
    assert guess("?", map(str, range(51))).endswith(", ...")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    """The limit is checked before the file is read."""
    (tmp_path / "a.json").write_text("{" + " " * (1 << 20) + "}")
    with pytest.raises(UsageError, match="larger than 1 MiB, so not a thing"):
        load(tmp_path / "a.json", "a thing", max_bytes=1 << 20)


def test_a_list_is_not_a_table(tmp_path: Path) -> None:
    """JSON can hold other things than tables."""
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(UsageError, match="a thing is a table of names and values"):
        load(tmp_path / "a.json", "a thing")
