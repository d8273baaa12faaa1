# SPDX-License-Identifier: MIT
"""The plain rows of register maps as sealed files, which clients look registers up in."""

from __future__ import annotations

import os
from itertools import count, starmap

from kvmabi import memfd
from kvmabi.interpose.share import ROW, ROWS
from kvmabi.model.registermap import RegisterMap

MOST_KEPT = 256
"""How many register maps have a number; a VMM that makes more modes than that starts anew."""


class RowFiles:
    """Numbers for register maps, never used twice, and a file of each that a client asks for."""

    def __init__(self) -> None:
        self._counter = count(1)
        self._numbers: dict[RegisterMap, int] = {}
        self._fds: dict[RegisterMap, int] = {}

    def number(self, regmap: RegisterMap) -> int:
        """The number of a register map, 1 or more."""
        number = self._numbers.get(regmap)
        if number is None:
            if len(self._numbers) >= MOST_KEPT:
                self.close()
            number = self._numbers[regmap] = next(self._counter)
        return number

    def open(self, regmap: RegisterMap) -> int:
        """A new descriptor of the map's file; the caller closes it. Errors: OSError."""
        fd = self._fds.get(regmap)
        if fd is None:
            fd = memfd.sealed("kvm-rows", encode(self.number(regmap), regmap))
            self._fds[regmap] = fd
        return os.dup(fd)

    def close(self) -> None:
        """Forget everything."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._numbers.clear()


def encode(number: int, regmap: RegisterMap) -> bytes:
    """The rows whose gets or sets are plain, by ascending ID, as share.h lays them out."""
    rows = sorted(
        (row.id, row.offset, row.size_bytes if row.plain_get else 0, row.valid_bytes if row.plain_set else 0)
        for row in regmap.rows.values()
        if row.plain_get or row.plain_set
    )
    return ROWS.pack(number, len(rows)) + b"".join(starmap(ROW.pack, rows))
