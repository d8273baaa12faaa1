# SPDX-License-Identifier: MIT
"""Registers in what users have at hand: lines of a VMM's log, bare numbers, names, and lists of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Final, NamedTuple

from kvmabi import regid, uapi
from kvmabi.errors import UsageError
from kvmabi.profiles.files import builtin
from kvmabi.snapshot.comparing import qemunumbers

MOST_REGISTERS: Final = 1 << 16
MOST_LINE: Final = 1 << 16
"""Characters of a line that are looked at; a longer line is not part of a list."""
_NUMBER = r"0[xX][0-9a-fA-F]{1,16}\b"
_NAMED = re.compile(rf"\b(?:registers?|reg|cpreg)\b[^0-9a-zA-Z]{{0,3}}(?:id[ :=]{{1,2}})?({_NUMBER})")
_WHOLE_ID = re.compile(r"\b0[xX][46]0[2-8]0[0-9a-fA-F]{12}\b")
_MISSING = re.compile(r"missing_in_incoming_stream")
_LIKE_ONE = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}|[A-Za-z][A-Za-z0-9_.]{0,40}(?:\[[0-9]{1,5}\]){0,2}")
_MEMBER = re.compile(r"(.+)\[(0|[1-9][0-9]{0,4})\]")
_ENCODED = re.compile(r"s[0-3]_[0-7]_c(?:[0-9]|1[0-5])_c(?:[0-9]|1[0-5])_[0-7]")
_BANKS: Final = {"ccsidr": uapi.KVM_REG_ARM_DEMUX_VAL_MASK, "fw": 0xFFFF, "fw_bmap": 0xFFFF}
"""Banks whose members do not all have a name of their own, and their greatest index."""
_SIZES = range(2, 9)


class Message(NamedTuple):
    """A message that does not name a register: whose it is, a part of it, and what it means."""

    vmm: str
    contains: str
    means: str


@dataclass
class Found:
    """What some lines name: ``ids`` in their order, those of ``missing`` absent from the stream, and messages.

    ``listed``: the lines are a list of registers and nothing else, so that a register that they do not name is absent.
    """

    ids: list[int] = field(default_factory=list)
    missing: set[int] = field(default_factory=set)
    messages: list[Message] = field(default_factory=list)
    listed: bool = False

    def __bool__(self) -> bool:
        return bool(self.ids or self.messages)


@cache
def messages() -> tuple[Message, ...]:
    """Every message that is known."""
    rows = builtin("messages.toml", "kvmabi.snapshot.comparing").rows("message")
    return tuple(Message(*(row.text(key) for key in Message._fields)) for row in rows)


def register_of(word: str) -> int | None:
    """The ID of a word that is a register's name, its ID, QEMU's number for it or its 16-bit encoding, else None.

    >>> [hex(register_of(word) or 0) for word in ("0x1013c096", "0xc096", "SMCR_EL1", "13c096")]
    ['0x603000000013c096', '0x603000000013c096', '0x603000000013c096', '0x0']
    """
    if not _LIKE_ONE.fullmatch(word) or (word[0].isalpha() and not _could_name(word.lower())):
        return None
    try:
        id = regid.parse(word)
    except UsageError:
        return None
    if not word[0].isdigit():
        return id
    if 1 << 15 <= id < 1 << 16:  # Op0 of a system register is 2 or 3
        return uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | id
    return qemunumbers.id_of(id)


def read(lines: Iterable[str]) -> Found:
    """The registers that the lines name; a line that is neither a register nor a known message is passed over.

    >>> log = ["handle_cpreg_only_in_incoming_stream: system register 0x1013c096 in the incoming stream", "exiting"]
    >>> [regid.name_of(id) for id in read(log).ids]
    ['smcr_el1']
    """
    found = Found(listed=True)
    seen: set[int] = set()
    for line in lines:
        text = line[:MOST_LINE].partition("#")[0].strip()
        if not text:
            continue
        words = text.replace(",", " ").split()
        ids = [register_of(word) for word in words]
        whole = None not in ids
        if not whole:
            ids = list(_in_message(text))
            found.messages += [message for message in messages() if message.contains in text]
        found.listed &= whole and len(line) <= MOST_LINE and not any(_is_short(word) for word in words)
        for id in ids:
            if id is not None and id not in seen and len(seen) < MOST_REGISTERS:
                seen.add(id)
                found.ids.append(id)
                if _MISSING.search(text):
                    found.missing.add(id)
    found.messages = list(dict.fromkeys(found.messages))
    found.listed &= len(found.ids) > 1
    return found


def read_list(data: bytes) -> list[int]:
    """The IDs of a struct kvm_reg_list as KVM_GET_REG_LIST fills it, none if the bytes are not one.

    >>> read_list((1).to_bytes(8, "little") + (0x603000000013C096).to_bytes(8, "little")) == [0x603000000013C096]
    True
    """
    count, rest = divmod(len(data) - 8, 8)
    if rest or not 0 < count <= MOST_REGISTERS or int.from_bytes(data[:8], "little") != count:
        return []
    ids = list(memoryview(data[8:]).cast("Q"))
    good = all(id >> 56 == uapi.KVM_REG_ARM64 >> 56 and id >> uapi.KVM_REG_SIZE_SHIFT & 0xF in _SIZES for id in ids)
    return ids if good else []


def _could_name(word: str) -> bool:
    """Whether a word is spelt as a register's name: without regid.parse, which looks for near names when it fails."""
    if word in _names() or _ENCODED.fullmatch(word):
        return True
    match = _MEMBER.fullmatch(word)
    if match is None:
        return False
    bank, number = match[1], int(match[2])
    if bank in _BANKS:
        return number <= _BANKS[bank]
    return bank in _names() and number == 0 and regid.decode(regid.parse(bank)).slice is not None


@cache
def _names() -> frozenset[str]:
    return frozenset(regid.names())


def _in_message(text: str) -> Iterable[int]:
    for pattern in (_NAMED, _WHOLE_ID):
        for match in pattern.finditer(text):
            id = register_of(match[match.lastindex or 0])
            if id is not None:
                yield id


def _is_short(word: str) -> bool:
    """Whether a word is a number that stands for an ID, as in a message, not the ID."""
    return word[:1].isdigit() and int(word, 0) <= qemunumbers.MOST
