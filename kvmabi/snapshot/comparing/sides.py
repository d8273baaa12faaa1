# SPDX-License-Identifier: MIT
"""The sides of a comparison: a snapshot, a list of registers, what a log names, or a host under a kernel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.snapshot import opening
from kvmabi.snapshot.comparing import loglines
from kvmabi.snapshot.comparing.loglines import Found
from kvmabi.snapshot.snapshot import Origin, Snapshot
from kvmabi.snapshot.source import BadBlob
from kvmabi.snapshot.wording import count

MOST_TEXT_BYTES = 4 << 20
MOST_PIPED_BYTES = 32 << 20
"""How much of a file is looked at as a list or a log."""


class SideKind(Enum):
    """What a side is."""

    SNAPSHOT = "snapshot"
    LIST = "register list"
    LOG = "log"
    HOST = "host"


@dataclass
class SideVcpu:
    """One vCPU of a side: its registers' bytes by ID (None: not known), and what is known of its state.

    ``refused`` are the registers that the side refuses when the other side's are restored, and why; ``kept`` what it
    then has of those that it accepts and does not keep as they were.
    """

    index: int
    registers: dict[int, bytes | None]
    mp_state: int | None = None
    refused: dict[int, str] = field(default_factory=dict)
    kept: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Side:
    """One side of a comparison.

    ``partial``: registers that it does not name are not absent. ``any_vcpu``: it stands for every vCPU of the other
    side. ``facts`` are the facts that can differ, None where one is not known. ``missing`` are registers that a log
    reports as absent from the stream, ``messages`` what it reports without a register.
    """

    name: str
    kind: SideKind
    vcpus: list[SideVcpu]
    facts: dict[str, Any] = field(default_factory=dict)
    origin: Origin = Origin.UNKNOWN
    kernel: str = ""
    snapshot: Snapshot | None = None
    partial: bool = False
    any_vcpu: bool = False
    missing: frozenset[int] = frozenset()
    messages: tuple[loglines.Message, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The side in one line."""
        registers = len(frozenset(id for vcpu in self.vcpus for id in vcpu.registers))
        words = [self.snapshot.format if self.snapshot else self.kind.value]
        if self.origin is not Origin.UNKNOWN:
            words.append(f"{self.origin.value}'s registers")
        if not self.any_vcpu:
            words.append(count(len(self.vcpus), "vCPU"))
        return ", ".join([*words, count(registers, "register")])


def side_of(what: str | Path | Snapshot | Iterable[int] | Side) -> Side:
    """The side that a snapshot, a file, a register's name or number, or an iterable of IDs stands for.

    A file holds a snapshot in any format, a list of registers (names or IDs, or what KVM_GET_REG_LIST fills in), or the
    log of a VMM. Raises UsageError for any other.

    >>> list(map(hex, side_of("0x1013c096").vcpus[0].registers))
    ['0x603000000013c096']
    """
    match what:
        case Side():
            return what
        case Snapshot():
            return of_snapshot(what, what.format)
        case str() | Path():
            return _of_text(str(what))
    ids = list(what)
    if not all(isinstance(id, int) for id in ids):
        raise UsageError("a side is a snapshot, a file, a register or register IDs")
    return of_found(Found(ids=ids, listed=True), "registers")


def of_snapshot(snapshot: Snapshot, name: str) -> Side:
    """The side that a snapshot is."""
    facts: dict[str, Any] = {
        "vcpus": len(snapshot.vcpus),
        "target": snapshot.target,
        "features": snapshot.features,
        "sve_bits": snapshot.sve_bits,
        "sme_bits": snapshot.sme_bits,
        "host": snapshot.host or None,
        "kernel": snapshot.kernel or None,
    }
    facts |= {key: value for key, value in snapshot.facts.items() if isinstance(value, str | int | bool)}
    return Side(
        name,
        SideKind.SNAPSHOT,
        [SideVcpu(vcpu.index, dict(vcpu.registers), vcpu.mp_state) for vcpu in snapshot.vcpus],
        facts,
        snapshot.origin,
        snapshot.kernel,
        snapshot,
    )


def of_found(found: Found, name: str) -> Side:
    """The side that registers from a list or a log are."""
    return Side(
        name,
        SideKind.LIST if found.listed else SideKind.LOG,
        [SideVcpu(0, dict.fromkeys(found.ids))],
        partial=not found.listed,
        any_vcpu=True,
        missing=frozenset(found.missing),
        messages=tuple(found.messages),
    )


def _of_text(text: str) -> Side:
    if not os.path.exists(text):
        id = loglines.register_of(text.strip())
        found = Found([id]) if id is not None else loglines.read([text])
        if found:
            return of_found(found, text)
        hint = "" if os.path.sep in text else _hint(text)
        raise UsageError(f"{text}: no such file, and not a register or message that is known{hint}")
    if os.path.isdir(text):
        return of_snapshot(opening.read(text), text)
    try:
        if not os.path.isfile(text):
            with open(text, "rb") as pipe:
                return of_stream(pipe, text)
        with open(text, "rb") as file:
            found = _found_in(file.read(MOST_TEXT_BYTES))
    except OSError as error:
        raise UsageError(f"{text}: cannot be read: {error.strerror or error}") from None
    if found.listed:
        return of_found(found, text)
    try:
        return of_snapshot(opening.read(text), text)
    except UsageError:
        if found:
            return of_found(found, text)
        raise


def of_stream(stream: BinaryIO, name: str) -> Side:
    """The side that comes from a pipe, which is read once: whatever a file can hold. Raises UsageError."""
    data = stream.read(MOST_PIPED_BYTES + 1)
    if len(data) > MOST_PIPED_BYTES:
        raise UsageError(f"{name}: more than {MOST_PIPED_BYTES >> 20} MiB come from a pipe: compare a file instead")
    found = _found_in(data[:MOST_TEXT_BYTES])
    if found.listed:
        return of_found(found, name)
    try:
        return of_snapshot(opening.read_bytes(data, name), name)
    except BadBlob as error:
        if found:
            return of_found(found, name)
        raise UsageError(f"{name}: {error.text}") from None


def _hint(text: str) -> str:
    """The end of an error about a word that may be a misspelt register."""
    try:
        regid.parse(text)
    except UsageError as error:
        _, _, guess = str(error).partition(": did you mean ")
        return f": did you mean {guess}" if guess else ""
    return ""


def _found_in(data: bytes) -> Found:
    """What a file names if it is text, or a struct kvm_reg_list; nothing for any other."""
    ids = loglines.read_list(data)
    if ids:
        return Found(ids=ids, listed=True)
    if b"\0" in data:
        return Found()
    found = loglines.read(data.decode("utf-8", "replace").splitlines())
    found.listed &= len(data) < MOST_TEXT_BYTES
    return found
