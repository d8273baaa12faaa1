# SPDX-License-Identifier: MIT
"""The reason for a failure, as a value."""

from __future__ import annotations

import errno
from typing import NamedTuple

from kvmabi.errors import KvmError, Named


class Refusal(NamedTuple):
    """Why an access fails: the errno the VMM sees, the rule, and a hint at the right call ("" without one).

    One that is not ``modelled`` is no kernel's: a kernel does something here that kvmabi does not.
    """

    errno: int
    reason: str
    hint: str = ""
    modelled: bool = True

    def error(self, register: Named | None = None, mode: object = "") -> KvmError:
        """The refusal as an exception, with the register and the mode where they explain it."""
        return KvmError(self.errno, self.reason, register=register, mode=mode, hint=self.hint, modelled=self.modelled)


FAULT = Refusal(errno.EFAULT, "the payload's address cannot be accessed for the register's length")
