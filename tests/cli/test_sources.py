# SPDX-License-Identifier: MIT
"""Origins as places in files: what each kind of frame says, and findings without any."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kvmabi.cli.sarif import Place
from kvmabi.cli.sources import innermost, stacks


@dataclass(frozen=True)
class Origin:
    """A chain of calls."""

    frames: tuple[str, ...]


@dataclass(frozen=True)
class Traced:
    """A finding with origins."""

    origins: tuple[tuple[str, Origin], ...]


@pytest.mark.parametrize(
    ("frame", "place"),
    [
        ("restore at src/vmm.c:41", Place("src/vmm.c", 41, "restore")),
        ("a::b<c at d> at /x/a b:c.rs:7", Place("/x/a b:c.rs", 7, "a::b<c at d>")),
        ("vmm.c:41", Place("vmm.c", 41)),
        ("restore+0x1c in /usr/bin/vmm", Place("", 0, "restore+0x1c in /usr/bin/vmm")),
        ("0x7f0012345678", Place("", 0, "0x7f0012345678")),
        ("", Place("", 0, "")),
        ("f at a.c:99999999999", Place("", 0, "f at a.c:99999999999")),
    ],
)
def test_frame(frame: str, place: Place) -> None:
    """A function, a file and a line if the frame has them; else its text stands where the function would."""
    (stack,) = stacks(Traced((("z9 was written", Origin((frame,))),)))
    assert (stack.label, stack.places) == ("z9 was written", (place,))


def test_innermost() -> None:
    """The first line of the first origin that has one."""
    first, second = Origin(("write+0x1 in libc.so", "f at a.c:1", "main at a.c:9")), Origin(("g at b.c:2",))
    assert innermost(stacks(Traced((("", first), ("", second))))) == Place("a.c", 1, "f")
    assert innermost(stacks(Traced((("", Origin(("x+0x1 in y",))), ("", second))))) == Place("b.c", 2, "g")
    assert innermost(()) is None
