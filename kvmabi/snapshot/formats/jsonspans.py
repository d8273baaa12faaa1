# SPDX-License-Identifier: MIT
"""Finds the parts of a JSON text that are worth parsing, one at a time, without building the whole.

A text of megabytes of small values takes ten to a hundred times its size when it is parsed. This walks over it with
regular expressions, which skip a string, an array of numbers or a flat object in one step, and yields the spans of
objects with a key of interest and of long strings; what is in a span is parsed by a library. What is outside of them is
not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import NamedTuple

from kvmabi.snapshot.source import BadBlob

MOST_BYTES = 20 << 20
MOST_DEPTH = 64
MOST_TOKENS = 4_000_000
LONG_STRING_BYTES = 64
"""Shorter strings are names and settings."""
MOST_SPAN_BYTES = 4 << 20
MOST_SPAN_VALUES = 300_000
"""What one vCPU needs at most: 256 rows of ZA of 256 bytes each are 65,536 values."""

_TOKEN = re.compile(
    rb"""[\s,]*+(?:
    (?P<string>"(?:[^"\\]++|\\.)*+")(?P<colon>\s*+:)?+
    |(?P<numbers>\[[-+0-9.eE,\s]*+\])
    |(?P<flat>\{(?:[^][{}"]++|"[^"\\]{0,600}+")*+\})
    |(?P<mark>[][{}])
    |(?P<scalar>[-+.A-Za-z0-9]++)
    )""",
    re.DOTALL | re.VERBOSE,
)
_LONGEST_KEY_BYTES = 200


class Span(NamedTuple):
    """A part of the text, in bytes. ``path`` are the keys that lead to it, ``is_string`` whether it is a string."""

    path: tuple[str, ...]
    start: int
    end: int
    is_string: bool


class _Open:
    __slots__ = ("has_key", "key", "name", "start")

    def __init__(self, name: str, start: int) -> None:
        self.name = name
        self.start = start
        self.key = ""
        self.has_key = False


def _key(stack: list[_Open]) -> str:
    """The key whose value comes next."""
    return stack[-1].key if stack else ""


def _path(stack: list[_Open], last: str) -> tuple[str, ...]:
    return (*(each.name for each in stack[1:]), last)


def spans(text: bytes, keys: Set[str]) -> Iterator[Span]:
    """Every object that has one of ``keys`` itself, at its end, and every long string, in the order of their ends.

    Raises BadBlob for a text that nests too deeply, has too many tokens, or ends in the middle.

    >>> text = b'{"a": [{"id": 7}, {"x": {"id": 8}}]}'
    >>> [text[span.start : span.end] for span in spans(text, {"id"})]
    [b'{"id": 7}', b'{"id": 8}']
    """
    stack: list[_Open] = []
    wanted = re.compile("|".join(re.escape(f'"{key}"') for key in sorted(keys)).encode() or b"(?!)")
    at = 0
    for _ in range(MOST_TOKENS):
        match = _TOKEN.match(text, at)
        if match is None:
            break
        at = match.end()
        kind = match.lastgroup
        if kind == "mark":
            mark = text[at - 1]
            if mark in b"{[":
                if len(stack) >= MOST_DEPTH:
                    raise BadBlob(f"JSON nests deeper than {MOST_DEPTH}", at - 1, "too-large")
                stack.append(_Open(_key(stack), at - 1))
            elif not stack:
                raise BadBlob("a bracket of JSON closes that none opened", at - 1)
            else:
                closed = stack.pop()
                if closed.has_key:
                    yield Span(_path(stack, closed.name), closed.start, at, False)
        elif kind == "flat":
            if wanted.search(text, match.start(kind), at):
                yield Span(_path(stack, _key(stack)), match.start(kind), at, False)
        elif kind == "colon" and stack:
            start, end = match.span("string")
            key = text[start + 1 : min(end - 1, start + _LONGEST_KEY_BYTES)].decode("utf-8", "replace")
            stack[-1].key = key
            stack[-1].has_key = stack[-1].has_key or key in keys
        elif kind == "string" and at - match.start("string") > LONG_STRING_BYTES:
            yield Span(_path(stack, _key(stack)), match.start("string"), at, True)
        if not stack:
            break
    else:
        raise BadBlob(f"more than {MOST_TOKENS} values in the JSON text", at, "too-large")
    if stack:
        rest = text[at : at + 20].strip()
        if rest:
            raise BadBlob(f"is not JSON: {rest[:12].decode('utf-8', 'replace')!r}", at)
        raise BadBlob("the JSON text ends in the middle", at, "truncated")
    if text[at:].strip():
        raise BadBlob("more text follows the JSON value", at)


def check_span(text: bytes, offset: int) -> None:
    """Check that a span can be parsed within the limits of size and number. Raises BadBlob."""
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if len(text) > MOST_SPAN_BYTES or values > MOST_SPAN_VALUES:
        raise BadBlob("more text or values than one vCPU has", offset, "too-large")
