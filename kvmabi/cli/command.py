# SPDX-License-Identifier: MIT
"""A command as data: its name, its help, its options and the function that carries it out."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn, Protocol

from kvmabi.cli import formats
from kvmabi.errors import UsageError


class SupportsWrite(Protocol):
    """A file for text."""

    def write(self, text: str, /) -> object:
        """Writes a text."""


class ExitStatus(IntEnum):
    """How a command ends."""

    SUCCESS = 0
    DIFFERENT = 1  # an answer differs, a rule is violated, a bug does not reproduce
    MISUSE = 2
    UNDECIDED = 3  # fpstate: a bound was reached
    FINDINGS = 99  # run: the program ended with 0, but lost something
    RUN_MISUSE = 125  # as env(1): all below is left to the program
    INTERRUPTED = 130  # 128 + SIGINT
    READER_LEFT = 141  # 128 + SIGPIPE, as for a program that the signal ends


class Parser(ArgumentParser):
    """Reports misuse as a UsageError of one line, in place of printing the usage and leaving."""

    def print_help(self, file: SupportsWrite | None = None) -> None:
        """Prints the help. Raises OSError if it cannot: argparse itself ignores that."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        """Raises the UsageError."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def no_options(_parser: ArgumentParser) -> None:
    """Adds nothing."""


@dataclass(frozen=True)
class Command:
    """A command or subcommand.

    ``about`` and ``example`` stand at the beginning and at the end of its help, ``summary`` in the list of its
    parent's. ``options`` adds its options to a parser, ``formats`` are the forms of its output, the default first
    (see kvmabi.cli.formats). ``run`` carries it out and returns the exit status; None if one of ``commands`` must be
    named.
    """

    name: str
    about: str
    example: str
    run: Callable[[Namespace], int] | None
    options: Callable[[ArgumentParser], None] = no_options
    summary: str = ""
    commands: tuple[Command, ...] = ()
    formats: tuple[str, ...] = ()

    def fill(self, parser: ArgumentParser) -> None:
        """Gives a parser the help and the options of the command."""
        parser.description = self.about
        parser.epilog = f"example:\n{self.example}"
        parser.formatter_class = RawDescriptionHelpFormatter
        self.options(parser)
        if self.formats:
            formats.add(parser, self.formats)
        if self.run is not None:
            parser.set_defaults(run=self.run)
        if self.commands:
            below = parser.add_subparsers(dest=f"{self.name}_command", metavar="COMMAND", required=self.run is None)
            for command in self.commands:
                command.fill(below.add_parser(command.name, help=command.summary))
