# SPDX-License-Identifier: MIT
"""Reports as text: lines that are wrapped, numbers with their nouns, runs of numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

WIDTH = 120
"""Characters of a line."""


def wrapped(text: str, indent: str = "", hanging: str | None = None, width: int = WIDTH) -> list[str]:
    """The lines of a text, each at most ``width`` characters; words such as IDs and names are not broken.

    ``indent`` begins the first line, ``hanging`` the others (None: ``indent`` and two spaces).

    >>> wrapped("sve_vls 0x606000000015ffff", "- ", width=20)
    ['- sve_vls', '-   0x606000000015ffff']
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  " if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "vCPU"), count(2, "vCPU")
    ('1 vCPU', '2 vCPUs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def runs(numbers: Iterable[int]) -> str:
    """Rising numbers with runs folded.

    >>> runs([0, 1, 2, 3, 7])
    '0-3, 7'
    """
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found)
