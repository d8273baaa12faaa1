# SPDX-License-Identifier: MIT
"""Source lines of addresses, from addr2line of GNU binutils: where compilers are, so is it.

It reads all versions of DWARF, compressed and separate debug information, and knows inlined functions and mangled
names. Without it, or without debug information, there are no lines. A large program's debug information can take longer
than a report may: the lines that are there by then are used.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

PROGRAM = "addr2line"
OPTIONS = ("--addresses", "--functions", "--demangle", "--inlines")
UNKNOWN = "??"
ADDRESS = re.compile(r"0x[0-9a-f]+")
PLACE = re.compile(r"(?P<file>.+):(?P<line>[1-9][0-9]*)(?: \(discriminator [0-9]+\))?")


class Line(NamedTuple):
    """A function's name, "" if it is not known, and its "file:line", "" if that is not known."""

    function: str
    place: str


def look_up(fd: int, addresses: Iterable[int], seconds: float) -> Mapping[int, tuple[Line, ...]]:
    """The lines of addresses in the ELF file behind ``fd``: several where functions are inlined, the innermost first.

    Takes at most ``seconds``; addresses that are not done by then are missing.
    """
    program = shutil.which(PROGRAM)
    if program is None or seconds <= 0:
        return {}
    import subprocess  # here: only a report with findings needs it

    command = [program, *OPTIONS, f"--exe=/proc/self/fd/{fd}"]
    environment = {name: value for name, value in os.environ.items() if name != "DEBUGINFOD_URLS"} | {"LC_ALL": "C"}
    given = "".join(f"{address:#x}\n" for address in addresses)
    try:
        done = subprocess.run(
            command,
            input=given.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            pass_fds=(fd,),
            env=environment,
            check=False,
        )
        output: bytes = done.stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
    except OSError:
        return {}
    return dict(_parsed(output.decode("utf-8", "replace")))


def _parsed(output: str) -> Iterator[tuple[int, tuple[Line, ...]]]:
    """Each address with the pairs of lines that follow it: a function and its place."""
    words = output.split("\n")
    words.pop()  # what follows the last line feed is not whole
    place = 0
    while place < len(words) and ADDRESS.fullmatch(words[place]):
        address = int(words[place], 16)
        place += 1
        found: list[Line] = []
        while place + 1 < len(words) and not ADDRESS.fullmatch(words[place]):
            found.append(_line(words[place], words[place + 1]))
            place += 2
        if found:
            yield address, tuple(found)


def _line(function: str, place: str) -> Line:
    known = PLACE.fullmatch(place)
    where = f"{known['file']}:{known['line']}" if known and known["file"] != UNKNOWN else ""
    return Line("" if function == UNKNOWN else function, where)
