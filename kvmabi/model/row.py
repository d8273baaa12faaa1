# SPDX-License-Identifier: MIT
"""A row of the register map: what one register ID means in one mode, and what an access to it does.

An access is one sentence: the caller's buffer, the row, the row's rule, the answer. The rule reads the payload
(``Buffer.take``) at the point where the kernel does, so the order of copies and checks is written once, here and in
the rules. A refusal is a value that is returned, not raised: a VMM that probes registers meets thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from kvmabi import regid, uapi
from kvmabi.model.effects import Effects, Place
from kvmabi.model.facts import Facts
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import FAULT, Refusal
from kvmabi.model.vmstate import VmState


class Buffer(Protocol):
    """The caller's buffer of a register access."""

    @property
    def taken(self) -> bytes | None:
        """What was taken from the buffer, None if nothing was."""

    @property
    def given(self) -> bytes | None:
        """What was put into the buffer, None if nothing was."""

    def take(self, size_bytes: int) -> bytes:
        """The bytes up to the first that cannot be read: fewer than ``size_bytes`` is a fault."""

    def put(self, data: bytes, valid_bytes: int) -> bool:
        """Write a register's ``valid_bytes`` and the zeroes after them; False is a fault."""


SIZE_SHIFT: Final = uapi.KVM_REG_SIZE_SHIFT
SIZE_FIELD: Final = uapi.KVM_REG_SIZE_MASK >> uapi.KVM_REG_SIZE_SHIFT

Outcome = Refusal | Effects | None
"""What a set returns: why it fails, which other registers it changed, or None."""
Getter = Callable[["Owner", "Row", Buffer], bytes | Refusal | None]
Setter = Callable[["Owner", "Row", Buffer], Outcome]
Rule = Callable[["Owner", "Row", bytes], Outcome]


class Row:
    """What one register ID means in one mode.

    ``size_bytes`` is what a transfer moves, ``offset`` the register's place in the register file, ``valid_bytes`` how
    many of its bytes are real in this mode: a set stores and reads no more than those, a get fills up with zeroes.
    ``get`` and ``set`` say why the access fails, or are None. ``shared``: the register belongs to the VM, a set reaches
    all its vCPUs. ``partial``: a set that faults halfway has stored what it could read and zeroed the rest.

    ``getter`` makes the value of a get that is more than a copy; it returns None where the kernel copies nothing out.
    ``setter`` carries out a set that is more than a copy. ``plain_get`` and ``plain_set``: the access is a copy between
    the caller's buffer and the register file, and nothing else.
    """

    __slots__ = (
        "get",
        "getter",
        "id",
        "listed",
        "offset",
        "partial",
        "plain_get",
        "plain_set",
        "set",
        "setter",
        "shared",
        "size_bytes",
        "valid_bytes",
    )

    def __init__(
        self,
        id: int,
        size_bytes: int,
        offset: int = 0,
        valid_bytes: int = 0,
        listed: bool = True,
        get: Refusal | None = None,
        set: Refusal | None = None,
        shared: bool = False,
        partial: bool = False,
        getter: Getter | None = None,
        setter: Setter | None = None,
    ) -> None:
        self.id = id
        self.size_bytes = size_bytes
        self.offset = offset
        self.valid_bytes = valid_bytes
        self.listed = listed
        self.get = get
        self.set = set
        self.shared = shared
        self.partial = partial
        self.getter = getter
        self.setter = checked(_store) if shared and set is None and setter is None else setter
        self.plain_get = get is None and getter is None
        self.plain_set = set is None and self.setter is None

    def alias(self, id: int) -> Row:
        """The same register under another ID, which is not listed."""
        how = self.get, self.set, self.shared, self.partial, self.getter, self.setter
        return Row(id, self.size_bytes, self.offset, self.valid_bytes, False, *how)

    @property
    def name(self) -> str:
        """The register's name ("za.h[3]")."""
        return regid.name_of(self.id)


def checked(rule: Rule) -> Setter:
    """A set that copies the whole payload, then lets ``rule`` check and store it."""

    def setter(vcpu: Owner, row: Row, buffer: Buffer) -> Outcome:
        data = buffer.take(row.valid_bytes)
        return FAULT if len(data) < row.valid_bytes else rule(vcpu, row, data)

    return setter


def _store(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """The rule of a VM-wide register without one of its own."""
    vcpu.store(row, data)
    return None


def refused_after_copy(_vcpu: Owner, row: Row, buffer: Buffer) -> Outcome:
    """A set that copies the payload before it looks at the ID, so EFAULT comes before the row's own refusal."""
    return FAULT if len(buffer.take(row.valid_bytes)) < row.valid_bytes else row.set


def refuse(id: int, refusal: Refusal, *, after_copy: bool = False) -> Row:
    """A row for an ID that answers nothing; ``after_copy``: a set reads 8 bytes of payload before it is refused."""
    setter = refused_after_copy if after_copy else None
    return Row(id, 1 << (id >> SIZE_SHIFT & SIZE_FIELD), 0, 8, False, refusal, refusal, False, False, None, setter)


def size_of(id: int) -> int:
    """The transfer size in bytes that a register ID's size field asks for."""
    return 1 << (id >> SIZE_SHIFT & SIZE_FIELD)


class Owner(Protocol):
    """The vCPU as the rules of its registers see it: Vcpu in vcpu.py."""

    @property
    def system(self) -> Facts:
        """What host and kernel settle."""

    @property
    def vm(self) -> VmState[Any]:
        """What the vCPUs of the VM share."""

    @property
    def mode(self) -> Mode:
        """The present mode."""

    @property
    def memory(self) -> Any:
        """The register file's bytes."""

    @property
    def zt0_room(self) -> bool:
        """Whether FINALIZE made room for ZT0."""

    def row(self, id: int) -> Row:
        """The register map's row of an ID."""

    def get(self, row: Row) -> bytes | Refusal | None:
        """A register's value."""

    def value(self, row: Row) -> int:
        """What the register file holds of a row, as a number."""

    def reset_value(self, row: Row) -> int:
        """The value that a 64-bit register has right after INIT."""

    def store(self, row: Row, data: bytes) -> None:
        """Put a register's valid bytes into its place."""

    def overwrite(self, effects: Effects, id: int, offset: int, value: bytes) -> None:
        """Give another register a value as a side effect."""

    def wipe(self, effects: Effects, start: int, end: int, places: Iterable[Place]) -> None:
        """Zero a range of the register file as a side effect."""

    def remap(self, **changed: Any) -> None:
        """Take the register map of another mode."""

    def warn(self, text: str) -> None:
        """Leave a warning."""
