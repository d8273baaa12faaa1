# SPDX-License-Identifier: MIT
"""Where in a program's source something happened: the origins of a finding, if it has any, as places in files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kvmabi.cli.sarif import Place, Stack
from kvmabi.events import Origin
from kvmabi.order import Finding

FRAME = re.compile(r"(?:(?P<function>.*) at )?(?P<path>.+):(?P<line>[0-9]{1,9})", re.DOTALL)


def stacks(of: Finding) -> tuple[Stack, ...]:
    """Returns the origins of a finding."""
    return tuple(Stack(label, tuple(_places(origin))) for label, origin in of.origins)


def innermost(chains: Sequence[Stack]) -> Place | None:
    """Returns the innermost line of a source that is known, of the first chain of calls that has one."""
    return next((place for stack in chains for place in stack.places if place.line), None)


def _places(origin: Origin) -> Iterator[Place]:
    for frame in origin.frames:
        read = FRAME.fullmatch(frame)
        if read is None:
            yield Place("", function=frame)
        else:
            yield Place(read["path"], int(read["line"]), read["function"] or "")
