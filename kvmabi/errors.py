# SPDX-License-Identifier: MIT
"""The two ways things go wrong: the kernel refuses (KvmError) or the user misuses us (UsageError)."""

from __future__ import annotations

import errno as _errno
from typing import Protocol


class Named(Protocol):
    """Something with a name, such as a row of the register map."""

    @property
    def name(self) -> str:
        """The name."""


class KvmError(OSError):
    """A refusal as the kernel gives it, with what a person needs to mend it.

    ``errno`` is what the VMM sees. ``register`` is the register's name or None, ``mode`` the
    vCPU's mode when it happened, ``reason`` the rule that refused and ``hint`` how to do it right
    (both may be empty).
    """

    def __init__(
        self,
        errno: int,
        reason: str = "",
        *,
        register: str | Named | None = None,
        mode: object = "",
        hint: str = "",
    ) -> None:
        super().__init__(errno, reason or _errno.errorcode.get(errno, str(errno)))
        self._register = register
        self._mode = mode
        self.reason = reason
        self.hint = hint

    @property
    def register(self) -> str | None:
        """The register's name, or None; it is looked up only when somebody asks."""
        return self._register if self._register is None or isinstance(self._register, str) else self._register.name

    @property
    def mode(self) -> str:
        """The vCPU's mode when it happened, as text."""
        return str(self._mode)

    @property
    def name(self) -> str:
        """The errno's name, as in errno.h ("EBUSY")."""
        return _errno.errorcode.get(self.errno or 0, str(self.errno))

    def __str__(self) -> str:
        who = f"{self.register}: " if self.register else ""
        mode = f" [{self.mode}]" if self.mode else ""
        way = f": {self.hint}" if self.hint else ""
        return f"{self.name}: {who}{self.reason or 'refused'}{mode}{way}"


class UsageError(Exception):
    """The user asked for something that cannot be: one clear line, which a command ends with 2."""
