# SPDX-License-Identifier: MIT
"""The table of steps: one ioctl a line, answered by one line.

A step is a letter and its words, as recorded traces and the line to the executor have it (``G 0 6030000000100000``), or
the same with a word for the letter, as case files have it (``get 0 6030000000100000``). More words than a step takes
are ignored. What the words are:

==========  ============================================================================================
file        ``s`` for the system's file, ``v`` for the VM's, a number for a vCPU's (in the order of creation, from
            0), ``d0`` to ``d3`` for a device's
vcpu        the number of a vCPU
number      a decimal number, perhaps negative
hex         a number in hex, with 0x or without
bytes       hex, in which ``bb*count.`` is a run of equal bytes
value       a number in hex, or ``-`` for an unmapped address
argument    bytes, in which ``@0`` to ``@3`` are descriptors of eventfds, ``@4`` of another kind of file, ``@5`` of the
            guest_memfd that was created last, ``@e4.`` and so on of further eventfds (4 bytes each), ``@p`` the
            address of the bytes behind the struct, and ``@m`` that of the memory for slots (8 bytes each)
offset      a number in hex, the place in the memory for slots: 2 MiB, zeroes after ``new`` and ``close-all``
==========  ============================================================================================

An answer is ``OK`` or the name of an errno. More follows it where the table says so.
https://docs.kernel.org/virt/kvm/api.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from operator import call
from typing import Final, NamedTuple

from kvmabi import hexruns

Value = int | str | bytes
File = int | str
"""A vCPU's number, "s", "v" or "d0"."""


class Op(NamedTuple):
    """A kind of step: its letter, its word, what follows them (name and kind of each), and what it does."""

    letter: str
    word: str
    words: tuple[tuple[str, str], ...]
    meaning: str


Step = tuple[str, tuple[Value, ...]]
"""A step: the letter of its kind, and the values of its words."""


def _op(letter: str, word: str, words: str, meaning: str) -> Op:
    pairs = (pair.partition(":") for pair in words.split())
    return Op(letter, word, tuple((name, kind or name) for name, _, kind in pairs), meaning)


OPS: Final = (
    _op("N", "new", "vcpus:count", "close everything; KVM_CREATE_VM, and KVM_CREATE_VCPU with 0 to vcpus-1"),
    _op("C", "create-vm", "type:hex", "KVM_CREATE_VM of a type; v, vCPUs and devices are this VM's, others stay open"),
    _op("U", "use-vm", "vm:count", "no ioctl: v, vCPUs and devices are those of a VM, by the order of creation from 0"),
    _op("c", "close-vm", "", "no ioctl: close the VM, its vCPUs and devices"),
    _op("Z", "close-all", "", "no ioctl: close everything; VMs count from 0 again"),
    _op("V", "create-vcpu", "id:number", "KVM_CREATE_VCPU"),
    _op("W", "enable-cap", "capability:number", "KVM_ENABLE_CAP on the VM"),
    _op("I", "init", "file target:number features:hex", "KVM_ARM_VCPU_INIT with one word of features"),
    _op(
        "i",
        "init-words",
        "file target:number " + " ".join(f"features{n}:hex" for n in range(7)),
        "KVM_ARM_VCPU_INIT with all seven words of features",
    ),
    _op("F", "finalize", "file feature:number", "KVM_ARM_VCPU_FINALIZE"),
    _op("G", "get", "file id:hex", "KVM_GET_ONE_REG: OK and the bytes; '!touched' if a failing one wrote"),
    _op("S", "set", "file id:hex data:bytes", "KVM_SET_ONE_REG of the bytes and zeroes behind them"),
    _op(
        "P",
        "set-pattern",
        "file id:hex seed:number",
        "KVM_SET_ONE_REG of a pattern: byte i is (seed + 7 i + (i >> 4)) mod 256",
    ),
    _op("B", "get-unmapped", "file id:hex", "KVM_GET_ONE_REG with an unmapped address"),
    _op("b", "set-unmapped", "file id:hex", "KVM_SET_ONE_REG with an unmapped address"),
    _op(
        "g",
        "get-partial",
        "file id:hex mapped:room",
        "KVM_GET_ONE_REG into a buffer of which only the first bytes are mapped",
    ),
    _op(
        "s",
        "set-partial",
        "file id:hex mapped:room seed:number",
        "KVM_SET_ONE_REG of a pattern from a buffer of which only the first bytes are mapped",
    ),
    _op("L", "list", "file n:number", "KVM_GET_REG_LIST with room for 4096 ids: OK or an errno, n afterwards, the ids"),
    _op(
        "l",
        "list-partial",
        "file n:number mapped:ids",
        "KVM_GET_REG_LIST with an array of which only the first ids are mapped: OK or an errno, and n afterwards",
    ),
    _op("M", "masks", "", "KVM_ARM_GET_REG_WRITABLE_MASKS: OK and id=mask of every mask that is not 0"),
    _op("R", "run", "vcpu", "KVM_RUN with kvm_run.immediate_exit set"),
    _op("E", "enter", "vcpu", "KVM_RUN with kvm_run.immediate_exit clear; a signal ends it after 10 ms"),
    _op("X", "ioctl", "file request:hex argument:hex", "an ioctl with a number as its argument: OK and the result"),
    _op("A", "ioctl-struct", "file request:hex", "an ioctl on a zeroed struct: OK and the struct afterwards"),
    _op("D", "create-device", "type:number flags:number", "KVM_CREATE_DEVICE on the VM; the first four are d0 to d3"),
    _op("h", "has-attr", "file group:number attr:hex value", "KVM_HAS_DEVICE_ATTR"),
    _op("o", "set-attr", "file group:number attr:hex value", "KVM_SET_DEVICE_ATTR of a value of 8 bytes"),
    _op("q", "get-attr", "file group:number attr:hex value", "KVM_GET_DEVICE_ATTR: OK and the value"),
    _op(
        "Y",
        "ioctl-bytes",
        "file request:hex data:argument",
        "an ioctl on a struct of these bytes: OK and the result; with @p, the given bytes behind the struct afterwards",
    ),
    _op("T", "stats", "file", "KVM_GET_STATS_FD: OK, the numbers of the header, and every descriptor with its name"),
    _op("m", "write-memory", "offset:offset data:bytes", "no ioctl: write bytes to the memory for slots"),
    _op("r", "read-memory", "offset:offset size:room", "no ioctl: OK and bytes of the memory for slots"),
    _op("Q", "cpu-features", "", "no ioctl: OK and the CPU features that the host's kernel reports"),
)
"""All kinds of steps. The executor in C (vm/executor.c) has the same letters."""

LETTERS: Final = {op.letter: op for op in OPS}
WORDS: Final = {op.word: op for op in OPS}
OPS_BY_HEAD: Final = {**WORDS, **LETTERS}
ON_REGISTER: Final = frozenset(op.letter for op in OPS if ("id", "hex") in op.words)
"""The letters of steps whose second word is a register's id."""

UNMAPPED: Final = 0x10
"""An address at which nothing is mapped."""
UNTOUCHED: Final = 0xAA
"""The byte that fills the buffer of ``get`` beforehand."""
MAX_IDS: Final = 4096
"""Room for ids in the array of ``list``."""
MAX_DEVICES: Final = 4
"""How many of a VM's devices have a name; those that are created later are closed at once."""
MAX_REGISTER_BYTES: Final = 2048
"""A pattern's length, and how much of a buffer an answer shows."""
EDGE_BYTES: Final = 65536
"""The most that can be mapped before an edge."""
MAX_ARGUMENT_BYTES: Final = 16384
"""The most bytes in one part of an argument."""
MAX_EVENTFDS: Final = 4
"""How many eventfds have a short name in ``ioctl-bytes``."""
MORE_EVENTFDS: Final = 1024
"""How many eventfds there can be, the first ones included."""
MAX_VMS: Final = 1024
"""How many VMs there can be since the last ``new``, closed ones included."""
OTHER_FILE: Final = "4"
GUEST_MEMFD: Final = "5"
BEHIND: Final = "p"
GUEST_MEMORY: Final = "m"
"""What stands for other descriptors and for addresses in an argument, after the @."""
ADDRESSES: Final = frozenset({BEHIND, GUEST_MEMORY})
GUEST_BYTES: Final = 2 << 20
"""The memory that a VM's slots can have."""
WORD_MASK: Final = (1 << 32) - 1
LONG_MASK: Final = (1 << 64) - 1

_DECIMAL = re.compile(r"-?[0-9]+")
_HEX = re.compile(r"-?(?:0[xX])?[0-9a-fA-F]+")
_PARTS = re.compile(r"@(?:[0-5pm]|e(?:[4-9]|[1-9][0-9]{1,2}|10[01][0-9]|102[0-3])\.)|[^@]+")
_FILE = re.compile(r"[sv]|d?[0-9]{1,9}")


def parse(text: str) -> Step:
    """The step that a text stands for, with a letter or a word; ValueError names what is wrong with it."""
    head, *words = text.split() or [""]
    op = OPS_BY_HEAD.get(head)
    if op is None:
        raise ValueError(f"{text[:60]!r} is not a step")
    if len(words) < len(op.words):
        missing = " ".join(name for name, _ in op.words[len(words) :])
        raise ValueError(f"{text[:60]!r} is not a step: {op.word} ({op.letter}) lacks {missing}")
    try:
        return op.letter, tuple(map(call, _READERS[op.letter], words))
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is not a step: {error}") from None


def in_words(text: str) -> str:
    """A step with its word in the place of its letter."""
    letter, *words = text.split()
    return " ".join((LETTERS[letter].word, *words))


def in_letters(text: str) -> str:
    """A step with its letter in the place of its word."""
    word, *words = text.split()
    return " ".join((WORDS[word].letter, *words))


def register_of(text: str) -> str:
    """The id of the register that a step is about, as written; "" if it is about none."""
    words = text.split(" ", 3)
    return words[2] if words[0] in ON_REGISTER and len(words) > 2 else ""


@lru_cache(512)
def pattern(seed: int, size: int = MAX_REGISTER_BYTES) -> bytes:
    """The bytes that ``set-pattern`` and ``set-partial`` write."""
    return bytes((seed + 7 * i + (i >> 4)) % 256 for i in range(size))


def _number(text: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a decimal number")
    return int(text)


def _hex(text: str) -> int:
    try:
        if (text.isalnum() and text.isascii()) or _HEX.fullmatch(text):
            return int(text, 16) & LONG_MASK
    except ValueError:
        pass
    raise ValueError(f"{text[:40]!r} is not a hexadecimal number")


@lru_cache(1024)
def _file(text: str) -> File:
    if not _FILE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not s, v, a vCPU's number or d and a device's")
    return f"d{int(text[1:])}" if text[0] == "d" else int(text) if text.isdecimal() else text


def _up_to(limit: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        value = _number(text)
        if not 0 <= value <= limit:
            raise ValueError(f"{value} is not in 0 to {limit}")
        return value

    return count


def _value(text: str) -> Value:
    return text if text == "-" else _hex(text)


def _offset(text: str) -> int:
    value = _hex(text)
    if not value < GUEST_BYTES:
        raise ValueError(f"{value:#x} is not below {GUEST_BYTES:#x}")
    return value


def argument_parts(text: str) -> tuple[bytes | str, ...]:
    """The parts of an argument: bytes, and what follows an @."""
    return tuple(
        part[1:] if part[0] == "@" else hexruns.expand(part, most_bytes=MAX_ARGUMENT_BYTES)
        for part in _PARTS.findall(text)
    )


def _argument(text: str) -> str:
    if "".join(_PARTS.findall(text)) != text:
        raise ValueError(f"{text[:40]!r} is not bytes with @0 to @5, @e4. to @e1023., @p and @m")
    argument_parts(text)
    return text


_COUNT = _up_to((1 << 31) - 1)

KINDS: Final[dict[str, Callable[[str], Value]]] = {
    "file": lru_cache(256)(_file),
    "vcpu": _COUNT,
    "count": _COUNT,
    "number": lru_cache(1024)(_number),
    "hex": _hex,
    "bytes": lru_cache(8192)(hexruns.expand),
    "value": _value,
    "room": _up_to(EDGE_BYTES),
    "argument": _argument,
    "offset": _offset,
    "ids": _up_to(EDGE_BYTES // 8 - 1),
}
"""How the words of each kind are read."""
_READERS: Final = {op.letter: tuple(KINDS[kind] for _, kind in op.words) for op in OPS}
