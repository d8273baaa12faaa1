# SPDX-License-Identifier: MIT
"""Names take a bounded time, and only files that a process really has mapped are opened."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from interpose.builds import PROGRAM_FLAGS, PROGRAMS, compile_file
from kvmabi.interpose import images, lines
from kvmabi.interpose.images import Budget, Image, open_mapped
from kvmabi.interpose.lines import Line

SLOW = """#!/bin/sh
echo 0x1200
echo named
echo file.c:12
echo 0x1300
exec sleep 60
"""


HOSTILE = (Line("f\x1b[31m", "a\r.c:1"),)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_file(PROGRAMS / "origin.c", tmp_path_factory.mktemp("images") / "origin", *PROGRAM_FLAGS)


@pytest.fixture
def slow_addr2line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An addr2line that answers for one address, and then not for a minute."""
    script = tmp_path / "slow"
    script.write_text(SLOW)
    script.chmod(stat.S_IRWXU)
    monkeypatch.setattr(lines, "PROGRAM", str(script))


@pytest.mark.slow
@pytest.mark.usefixtures("slow_addr2line")
def test_names_take_bounded_time(program: Path) -> None:
    """What is there in time is used; the rest has its symbols, and once the time is spent only its offset."""
    budget = Budget(0.3)
    image = Image(str(program), os.open(program, os.O_RDONLY), budget)
    start = time.monotonic()
    found = image.names([0x1200, 0x1300])
    assert found[0x1200] == ("named at file.c:12",)
    assert " in " in found[0x1300][0]
    assert budget.seconds <= 0
    assert image.names([0x1310]) == {0x1310: (f"{program}+0x1310",)}
    assert time.monotonic() - start < 2


def test_one_look_at_a_file(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be asked for later is looked up with the first question."""
    calls: list[list[int]] = []

    def look_up(_fd: int, addresses: object, _seconds: float) -> dict[int, tuple[Line, ...]]:
        calls.append(list(addresses))  # type: ignore[call-overload]
        return {address: (Line("f", f"f.c:{address}"),) for address in calls[-1]}

    monkeypatch.setattr(lines, "look_up", look_up)
    image = Image(str(program), os.open(program, os.O_RDONLY), Budget())
    for offset in (0x1200, 0x1210):
        image.note(offset)
    assert image.names([0x1210]) == {0x1210: (f"f at f.c:{0x1210}",)}
    assert image.names([0x1200]) == {0x1200: (f"f at f.c:{0x1200}",)}
    assert calls == [[0x1210, 0x1200]]


def test_inlined_functions_and_unknown_lines() -> None:
    """The output of addr2line: several functions for an address, a discriminator, nothing known; cut anywhere."""
    output = "0x10\ninner\na.h:3\nouter\nb.c:9 (discriminator 2)\n0x20\nf\nc.c:?\n0x30\n??\n??:0\n0x40\ng\nd.c:1\n0x"
    assert dict(lines._parsed(output)) == {
        0x10: (Line("inner", "a.h:3"), Line("outer", "b.c:9")),
        0x20: (Line("f", ""),),
        0x30: (Line("", ""),),
        0x40: (Line("g", "d.c:1"),),
    }
    for end in range(len(output)):
        assert set(dict(lines._parsed(output[:end]))) <= {0x10, 0x20, 0x30, 0x40}


def test_opens_the_file_that_is_mapped(tmp_path: Path) -> None:
    """Not another one that has its path by now, and no pipe, which would block."""
    mapped = tmp_path / "mapped"
    mapped.write_text("")
    inode = mapped.stat().st_ino
    fd = open_mapped(os.getpid(), str(mapped), inode)
    assert fd is not None
    os.close(fd)
    assert open_mapped(os.getpid(), str(mapped), inode + 1) is None
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert open_mapped(os.getpid(), str(pipe), pipe.stat().st_ino) is None
    assert open_mapped(os.getpid(), f"{tmp_path}/nothing", inode) is None


def test_descriptor_is_closed_with_its_image(program: Path) -> None:
    """A report that is dropped leaves nothing open."""
    fd = os.open(program, os.O_RDONLY)
    image = Image(str(program), fd, Budget())
    del image
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_names_cannot_drive_a_terminal(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file can call its functions and sources anything."""
    assert images.printable("a\x1b[31m\nä") == "a?[31m?ä"
    monkeypatch.setattr(lines, "look_up", lambda _fd, addresses, _seconds: dict.fromkeys(addresses, HOSTILE))
    image = Image(str(program), os.open(program, os.O_RDONLY), Budget())
    assert image.names([0x1200]) == {0x1200: ("f?[31m at a?.c:1",)}
