# SPDX-License-Identifier: MIT
"""Comparing answers: what agrees, what does not, and what is remembered by name."""

from __future__ import annotations

import pytest

from kvmabi import regid
from kvmabi.conformance.answers import Names, agrees, resolve, unknown_names
from kvmabi.steps.backends.model import ModelBackend

X0, PC = f"{regid.parse('x0'):x}", f"{regid.parse('pc'):x}"


@pytest.mark.parametrize(
    ("expected", "got", "result"),
    [
        ("OK", "OK", True),
        ("OK", "OK 00*8.", True),
        ("OK", "ENOENT", False),
        ("EPERM", "EPERM", True),
        ("EPERM", "EPERM 4096", True),
        ("EPERM", "EPERM !touched", False),
        ("ENOENT|EINVAL", "EINVAL", True),
        ("ENOENT|EINVAL", "OK", False),
        ("any", "EIO", True),
        ("OK =1", "OK 0100*7.", True),
        ("OK =1", "OK 0200*7.", False),
        ("OK =1", "OK", False),
        ("E2BIG 257", "E2BIG 257", True),
        ("E2BIG 257", "E2BIG 258", False),
        ("OK with x0", f"OK 2 {X0} {PC}", True),
        ("OK with x0 without pc", f"OK 2 {X0} {PC}", False),
        ("OK without z0 with pc", f"OK 2 {X0} {PC}", True),
        ("OK with x0", f"OK 3 {X0} {PC}", False),
        ("OK with x0", f"OK 2 {X0} {X0}", False),
    ],
)
def test_agrees(model: ModelBackend, expected: str, got: str, result: bool) -> None:
    """Errnos, values, counts and lists are compared as the language says; a list must not lie about its length."""
    assert agrees(expected, got, 8, model.describe(), {}) is result


def test_names_are_bound_once(model: ModelBackend) -> None:
    """A $name is bound by the first answer, and the next ones must equal it; +1 and -1 count from it."""
    names: Names = {}
    host_features = model.describe()
    assert unknown_names("list 0 $n-1", names)
    assert agrees("E2BIG $n", "E2BIG 257", 0, host_features, names)
    assert names == {"n": "257"}
    assert not unknown_names("list 0 $n-1", names)
    assert resolve("list 0 $n-1", names) == "list 0 256"
    assert agrees("OK $n", "OK 257 1 2", 0, host_features, names)
    assert not agrees("OK $n", "OK 258 1 2", 0, host_features, names)
    with pytest.raises(ValueError, match=r"\$other"):
        resolve("list 0 $other", names)
