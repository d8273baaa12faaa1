# SPDX-License-Identifier: MIT
"""protocol.py and protocol.h are one protocol."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from ctools import evaluate

from interpose.builds import SOURCE
from kvmabi.interpose import backtraces, protocol, share
from kvmabi.model import state

REQUEST_FIELDS = ("message", "request", "identity", "argument")
BACKTRACE_FIELDS = ("message", "thread", "count", "zero", "name")
REPLY_FIELDS = ("result", "error", "flags", "place", "sigmask")
SHARE_FIELDS = {
    "struct kvmabi_event": (share.EVENT, ("id", "nanoseconds", "kind", "bytes")),
    "struct kvmabi_rows": (share.ROWS, ("map", "count")),
    "struct kvmabi_row": (share.ROW, ("id", "place", "get_bytes", "set_bytes")),
}
SHARE_SIZES = (
    "REGISTERS_AT",
    "HEADER_AT",
    "EVENTS_AT",
    "EVENTS_BYTES",
    "FILE_BYTES",
    "MOST_REGISTER_BYTES",
)
HEADER = '"protocol.h"'
SHARE_HEADER = '"share.h"'


def offsets(layout: struct.Struct) -> list[int]:
    """The offsets of a layout's fields, in bytes."""
    codes = _codes(layout.format)
    return [struct.calcsize("=" + "".join(codes[:place])) for place in range(len(codes))]


def _codes(layout: str) -> list[str]:
    codes, digits = [], ""
    for letter in layout.removeprefix("="):
        if letter.isdigit():
            digits += letter
        else:
            codes.append(digits + letter)
            digits = ""
    return codes


def from_c(folder: Path, *expressions: str) -> list[int]:
    return evaluate(folder, expressions, [f"-I{SOURCE}"], headers=HEADER)


def from_share(folder: Path, *expressions: str) -> list[int]:
    return evaluate(folder, expressions, [f"-I{SOURCE}"], headers=SHARE_HEADER)


def test_the_same_numbers(tmp_path: Path) -> None:
    """Every message and flag has its number in C."""
    names = [*protocol.Message, *protocol.Flag]
    assert from_c(tmp_path, *(f"KVMABI_{name.name}" for name in names)) == [int(name) for name in names]
    assert from_c(tmp_path, "KVMABI_EVENTS", "KVMABI_CALLED") == [protocol.EVENTS, protocol.CALLED]
    assert from_c(tmp_path, "KVMABI_PROTOCOL_VERSION", "KVMABI_MOST_FRAMES") == [protocol.VERSION, protocol.MOST_FRAMES]


@pytest.mark.slow
def test_the_same_layout(tmp_path: Path) -> None:
    """Every field is at its offset in C, and no field is missing."""
    for layout, name, fields in (
        (protocol.REQUEST, "struct kvmabi_request", REQUEST_FIELDS),
        (protocol.REPLY, "struct kvmabi_reply", REPLY_FIELDS),
    ):
        assert from_c(tmp_path, *(f"offsetof({name}, {field})" for field in fields)) == offsets(layout)
        assert from_c(tmp_path, f"sizeof({name})") == [layout.size]
    name = "struct kvmabi_backtrace"
    found = from_c(tmp_path, *(f"offsetof({name}, {field})" for field in (*BACKTRACE_FIELDS, "addresses")))
    assert found == [*offsets(protocol.BACKTRACE), protocol.BACKTRACE.size]
    assert from_c(tmp_path, f"sizeof({name})") == [backtraces.MOST_BYTES]


def test_the_same_variable(tmp_path: Path) -> None:
    """The socket's path is passed in the environment variable that C reads."""
    name = protocol.SOCKET_VARIABLE
    letters = [f"KVMABI_SOCKET_VARIABLE[{place}]" for place in range(len(name) + 1)]
    assert bytes(from_c(tmp_path, *letters)) == name.encode() + b"\0"


def test_the_same_shared_memory(tmp_path: Path) -> None:
    """What a vCPU's file and the rows hold is at the same places in C and Python, and has room for the registers."""
    assert from_share(tmp_path, *(f"KVMABI_{name}" for name in SHARE_SIZES)) == [
        getattr(share, name) for name in SHARE_SIZES
    ]
    assert from_share(tmp_path, "KVMABI_MOST_EVENT_BYTES") == [share.MOST_EVENT_BYTES]
    kinds = {
        "KVMABI_GOT": share.EventKind.GOT,
        "KVMABI_SET": share.EventKind.SET,
        "KVMABI_CALLS": share.EventKind.CALLS,
    }
    kinds |= {f"KVMABI_{wanted.name}": wanted for wanted in share.Wanted}
    assert from_share(tmp_path, *kinds) == [int(kind) for kind in kinds.values()]
    words = [f"offsetof(struct kvmabi_header, {word.name.lower()})" for word in share.Word]
    assert from_share(tmp_path, *words) == [8 * word for word in share.Word]
    assert from_share(tmp_path, "sizeof(struct kvmabi_header)") == [share.HEADER_BYTES]
    assert from_share(tmp_path, "offsetof(struct kvmabi_header, settled)") == [share.SETTLED_AT]
    assert share.REGISTERS_AT + state.SIZE_BYTES <= share.HEADER_AT
    assert share.EVENTS_AT + share.EVENTS_BYTES == share.FILE_BYTES


@pytest.mark.slow
def test_the_same_shared_structs(tmp_path: Path) -> None:
    """Events and rows have the same layout in C."""
    for name, (layout, fields) in SHARE_FIELDS.items():
        assert from_share(tmp_path, *(f"offsetof({name}, {field})" for field in fields)) == offsets(layout)
        assert from_share(tmp_path, f"sizeof({name})") == [layout.size]
