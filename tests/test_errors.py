# SPDX-License-Identifier: MIT
"""Errors carry the facts that a user needs."""

from __future__ import annotations

import errno

from kvmabi import KvmError


def test_refusal_is_an_oserror_with_everything() -> None:
    """errno for the VMM; register, mode, rule and hint for the user."""
    error = KvmError(errno.EBUSY, "the rule", register="zt0", mode="SVCR.ZA=0", hint="the hint")
    assert isinstance(error, OSError)
    assert (error.errno, error.name) == (errno.EBUSY, "EBUSY")
    assert str(error) == "EBUSY: zt0: the rule [SVCR.ZA=0]: the hint"


def test_refusal_without_words() -> None:
    """An errno alone makes a sentence; an errno without a name is printed as a number."""
    assert str(KvmError(errno.EINVAL)) == "EINVAL: refused"
    assert KvmError(9999).name == "9999"
