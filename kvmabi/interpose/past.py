# SPDX-License-Identifier: MIT
"""A shared vCPU as it was when something happened that is recorded only now."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kvmabi.device import VcpuFile
from kvmabi.interpose.ring import SET, Broken, Entry, decode
from kvmabi.interpose.share import Word
from kvmabi.model.mode import Mode
from kvmabi.model.row import Row
from kvmabi.uapi import ffi

WRITTEN = int(Word.WRITTEN)


class Stretch:
    """A time in which only clients changed the vCPU's registers, so that its events can be taken back.

    It lasts until `freeze`, which comes before the server changes them.
    """

    def __init__(self, device: VcpuFile, ring: Any, words: Any) -> None:
        self.device = device
        self._ring = ring
        self._words = words
        self._frozen: tuple[Any, int, Mode] | None = None

    @property
    def mode(self) -> Mode:
        """The vCPU's mode then."""
        return self.device.vcpu.mode if self._frozen is None else self._frozen[2]

    def freeze(self) -> None:
        """The server is about to change the vCPU."""
        self._frozen = self._now()

    def plain_row(self, entry: Entry) -> Row | None:
        """The row of the register that was got or set; None if that was no plain access to this vCPU.

        It is one unless the client lies, or another vCPU's ioctl changed the mode meanwhile.
        """
        vcpu = self.device.vcpu
        regmap = vcpu.map if self._frozen is None else vcpu.system.map(self.mode)
        row = None if regmap is None else regmap.find(entry.id)
        if row is None:
            return None
        if entry.kind == SET:
            return row if row.set is None and row.valid_bytes == len(entry.data) else None
        return row if row.plain_get and row.size_bytes == len(entry.data) else None

    def values(self, position: int) -> Mapping[int, bytes]:
        """The visible registers as they were when the events before ``position`` had happened, and no others."""
        memory, end, mode = self._now() if self._frozen is None else self._frozen
        copy = ffi.buffer(ffi.new("char[]", memory[:]))
        later: list[Entry] = []
        with suppress(Broken):
            later = decode(self._ring, position, end)
        for entry in reversed(later):
            row = self.plain_row(entry) if entry.kind == SET else None
            if row is not None:
                copy[row.offset : row.offset + len(entry.before)] = entry.before
        return self.device.vcpu.values_in(copy, mode)

    def _now(self) -> tuple[Any, int, Mode]:
        """The register file, the end of its events, and the mode. A set leaves its event before it stores: in this
        order, every set that is in the copy is among the events."""
        vcpu = self.device.vcpu
        memory: bytes = vcpu.memory[:]
        return memory, self._words[WRITTEN], vcpu.mode


class Past:
    """The source of an event (events.Source): the vCPU in a stretch of time, at a position in its ring."""

    __slots__ = ("position", "stretch")

    def __init__(self, stretch: Stretch, position: int) -> None:
        self.stretch = stretch
        self.position = position

    def values(self) -> Mapping[int, bytes]:
        """See events.Source."""
        return self.stretch.values(self.position)

    def pseudo_values(self) -> Mapping[int, bytes]:
        """See events.Source."""
        return self.stretch.device.pseudo_values()

    def controllers(self) -> Mapping[tuple[int, int], bytes]:
        """See events.Source."""
        return self.stretch.device.controllers()
