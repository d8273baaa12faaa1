# SPDX-License-Identifier: MIT
"""Where a register stands in a state.json: found when it is asked for, by counting entries in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from kvmabi.snapshot.formats.gathering import core_places
from kvmabi.snapshot.formats.jsonspans import Span

_NUMBER = re.compile(rb"[0-9]++")
_PAIR = re.compile(rb"\[\s*+(?:[0-9]++\s*+,\s*+){15}[0-9]++\s*+\]")
_WIDE = re.compile(rb"id\W{1,8}([0-9]++)")
_VCPU = re.compile(rb"core_regs")
_CORE = re.compile(rb"core_regs\W{1,8}(?=[0-9])")


def places(text: bytes, span: Span, ids: list[int]) -> Callable[[], Mapping[int, int]]:
    """A function that returns the place in ``text``, in bytes, of each of ``ids`` in the span of one vCPU.

    Entries of lists of bytes and of lists of IDs have one; core registers that are fields of an object do not. Where
    the span has several vCPUs, all have its beginning.
    """

    def found() -> Mapping[int, int]:
        if len(_VCPU.findall(text, span.start, span.end)) > 1:
            return dict.fromkeys(ids, span.start)
        wanted = set(ids)
        return {id: at for id, at in _places(text, span) if id in wanted}

    return found


def _places(text: bytes, span: Span) -> Iterator[tuple[int, int]]:
    core = _CORE.search(text, span.start, span.end)
    if core is not None:
        end = text.find(b"]", core.end(), span.end)
        starts = [match.start() for match in _NUMBER.finditer(text, core.end(), max(end, core.end()))]
        for id, offset, _ in core_places():
            if offset < len(starts):
                yield id, starts[offset]
    for match in _PAIR.finditer(text, span.start, span.end):
        octets = [int(number) for number in _NUMBER.findall(match[0])[:8]]
        if max(octets) < 256:
            yield int.from_bytes(bytes(octets), "little"), match.start()
    for match in _WIDE.finditer(text, span.start, span.end):
        if len(match[1]) <= 20:
            yield int(match[1]), match.start()
