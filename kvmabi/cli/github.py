# SPDX-License-Identifier: MIT
"""Annotations of GitHub Actions: lines on stderr that the runner shows at the job and in the changed files.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions. The runner reads them from stdout and
from stderr; stdout is the program's, or a report that is piped somewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

VARIABLE: Final = "GITHUB_ACTIONS"
IN_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
IN_PROPERTIES = IN_DATA | {":": "%3A", ",": "%2C"}


class Level(StrEnum):
    """How severe an annotation is."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True)
class Annotation:
    """A message with a title; ``path`` and ``line`` say where, if known ("" and 0 if not)."""

    level: Level
    title: str
    message: str
    path: str = ""
    line: int = 0


def text(annotation: Annotation) -> str:
    """Returns the annotation as a workflow command.

    >>> text(Annotation(Level.ERROR, "lost: z9, z10", "100% gone"))
    '::error title=lost%3A z9%2C z10::100%25 gone'
    """
    properties = {"title": annotation.title}
    if annotation.path:
        properties["file"] = _within(annotation.path)
        if annotation.line > 0:
            properties["line"] = str(annotation.line)
    pairs = ",".join(f"{name}={_escape(value, IN_PROPERTIES)}" for name, value in properties.items())
    return f"::{annotation.level} {pairs}::{_escape(annotation.message, IN_DATA)}"


def show(annotations: Iterable[Annotation]) -> None:
    """Prints the annotations on stderr, if this process runs in GitHub Actions."""
    if os.environ.get(VARIABLE) == "true":
        with suppress(OSError):  # stderr is closed: the exit status still reports findings
            for annotation in annotations:
                print(text(annotation), file=sys.stderr, flush=True)


def _within(path: str) -> str:
    """Returns a path relative to the working directory, as the runner expects it, if it is below that."""
    return os.path.relpath(path) if os.path.abspath(path).startswith(os.path.join(os.getcwd(), "")) else path


def _escape(value: str, escapes: dict[str, str]) -> str:
    """Returns a value in one line: with GitHub's escapes, and ours for what cannot be printed."""
    return "".join(escapes.get(char) or (char if char.isprintable() else ascii(char)[1:-1]) for char in value)
