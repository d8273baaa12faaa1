# SPDX-License-Identifier: MIT
"""``--format``: one word for the form of the output in every command, and its other spellings."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module

import pytest

from cli.conftest import Kvmabi, one_line
from kvmabi import cli
from kvmabi.cli import formats
from kvmabi.cli.command import Command
from kvmabi.errors import UsageError

PRINT_DATA = ["reg svcr za.h[3]", "regs", "include", "hosts", "kernels", "kernels diff sme-v10 sme-v12"]


def commands() -> Iterator[tuple[str, Command]]:
    """Every command and subcommand that can be run, with its words."""

    def below(words: str, command: Command) -> Iterator[tuple[str, Command]]:
        if command.run is not None:
            yield words, command
        for child in command.commands:
            yield from below(f"{words} {child.name}", child)

    for name in cli.COMMANDS:
        yield from below(name, import_module(f"kvmabi.cli.{name}").COMMAND)


COMMANDS = dict(commands())


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_the_option(kvmabi: Kvmabi, words: str) -> None:
    """Each has text, the default, and JSON; its help lists the forms and --json."""
    assert COMMANDS[words].formats[:2] == formats.DATA
    out = kvmabi(*words.split(), "--help").out
    assert f"--format {{{','.join(COMMANDS[words].formats)}}}" in out
    assert "short for --format json" in out
    assert "exit status: " in out


@pytest.mark.parametrize("words", ["run", "conformance", "replay", "fuzz", "fpstate check", "fpstate audit"])
def test_commands_that_judge_have_junit(words: str) -> None:
    assert formats.JUNIT in COMMANDS[words].formats


@pytest.mark.parametrize("words", ["run", "conformance", "replay"])
def test_commands_that_know_where_have_sarif(words: str) -> None:
    assert formats.SARIF in COMMANDS[words].formats


@pytest.mark.slow
@pytest.mark.parametrize("line", PRINT_DATA)
def test_json_is_short_for_format_json(kvmabi: Kvmabi, line: str) -> None:
    """The same output, also with both; and that of --format text is the default's."""
    words = line.split()
    short = kvmabi(*words, "--json")
    assert short.status == 0
    assert short.out.lstrip()[0] in "[{"
    assert kvmabi(*words, "--format", "json") == short
    assert kvmabi(*words, "--format", "json", "--json") == short
    assert kvmabi(*words, "--format", "text") == kvmabi(*words)


@pytest.mark.parametrize("line", [*PRINT_DATA, "replay x", "conformance", "fuzz --against trace x", "fpstate variants"])
def test_contradiction_is_misuse(kvmabi: Kvmabi, line: str) -> None:
    """--json with another form is one line that names both."""
    one_line(kvmabi(*line.split(), "--json", "--format", "text"), 2, "--format text and --json contradict each other")


@pytest.mark.parametrize("words", ["--json --format junit", "--report json --format sarif", "--report text --json"])
def test_contradiction_of_run(kvmabi: Kvmabi, words: str) -> None:
    """Misuse of kvmabi run is 125."""
    one_line(kvmabi("run", *words.split(), "--", "true"), 125, "contradict each other")


@pytest.mark.parametrize(
    "line",
    ["reg svcr --format junit", "hosts --format sarif", "fuzz --against trace x --format sarif", "regs --format"],
)
def test_a_form_that_a_command_lacks(kvmabi: Kvmabi, line: str) -> None:
    """The line names the forms that there are."""
    one_line(kvmabi(*line.split()), 2, "--format")


@pytest.mark.parametrize("form", ["junit", "sarif"])
def test_a_list_of_cases_is_no_judgement(kvmabi: Kvmabi, form: str) -> None:
    """conformance --list is data: text or JSON."""
    one_line(kvmabi("conformance", "--list", "--format", form), 2, f"--format {form}")


def test_report_is_hidden(kvmabi: Kvmabi) -> None:
    """The older spelling of kvmabi run is accepted, but its help has only the present one, and --report none."""
    assert set(re.findall(r"--report\b *(\S*)", kvmabi("run", "--help").out)) <= {"none", "none]"}


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ({}, "text"),
        ({"format": "sarif"}, "sarif"),
        ({"json": "json"}, "json"),
        ({"report": "json", "format": "json"}, "json"),
        ({"report": "text"}, "text"),
    ],
)
def test_settle(given: dict[str, str], form: str) -> None:
    """Spellings that agree are one form; none is text."""
    args = Namespace(**given)
    formats.settle(args)
    assert args.format == form


def test_settle_names_what_was_given() -> None:
    with pytest.raises(UsageError, match=r"^--json and --report text contradict"):
        formats.settle(Namespace(json="json", report="text"))
