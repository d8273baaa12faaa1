# SPDX-License-Identifier: MIT
"""The two errors: an errno of the kernel (KvmError), and a caller that asks for something impossible (UsageError)."""

from __future__ import annotations

import errno as _errno
from typing import Protocol

NOT_MODELLED = "kvmabi does not model this"
ASKED_FOR = "a fault that was asked for"
GUEST_FAILED = "the guest's script failed: "
"""How the warning of a failed guest begins."""
"""How the reason of an ioctl that a rule of kvmabi.faults struck begins."""


class Named(Protocol):
    """Something with a name, such as a row of the register map."""

    @property
    def name(self) -> str:
        """The name."""


class KvmError(OSError):
    """An ioctl that fails as it does in the kernel, with the reason and a hint.

    ``errno`` is the errno that the VMM gets. ``register`` is the register's name or None, ``mode`` the
    vCPU's mode at that time, ``reason`` the rule that failed and ``hint`` how to avoid it (both can be empty).
    ``modelled`` is False where a kernel may do something else: kvmabi does not model it.
    """

    def __init__(
        self,
        errno: int,
        reason: str = "",
        *,
        register: str | Named | None = None,
        mode: object = "",
        hint: str = "",
        modelled: bool = True,
    ) -> None:
        super().__init__(errno, reason or _errno.errorcode.get(errno, str(errno)))
        self._register = register
        self._mode = mode
        self.reason = reason
        self.hint = hint
        self.modelled = modelled

    @property
    def register(self) -> str | None:
        """The register's name, or None; looked up on demand."""
        return self._register if self._register is None or isinstance(self._register, str) else self._register.name

    @property
    def mode(self) -> str:
        """The vCPU's mode at the time of the error, as text."""
        return str(self._mode)

    @property
    def name(self) -> str:
        """The errno's name, as in errno.h ("EBUSY")."""
        return _errno.errorcode.get(self.errno or 0, str(self.errno))

    def __str__(self) -> str:
        register = f"{self.register}: " if self.register else ""
        mode = f" [{self.mode}]" if self.mode else ""
        hint = f": {self.hint}" if self.hint else ""
        unmodelled = "" if self.modelled else f"{NOT_MODELLED}: "
        return f"{self.name}: {unmodelled}{register}{self.reason or 'refused'}{mode}{hint}"


class UsageError(Exception):
    """The caller asks for something impossible. The text is one line; a command exits with status 2."""
