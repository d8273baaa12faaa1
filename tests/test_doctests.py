# SPDX-License-Identifier: MIT
"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kvmabi"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if not path.name.startswith("_uapi_") and "\n>>> " in path.read_text("utf-8").replace("    >>> ", ">>> ")
)


def test_there_are_examples() -> None:
    """The modules that users begin with have one."""
    assert {"kvmabi", "kvmabi.kvm"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    """Every example of a module."""
    failed, tried = doctest.testmod(import_module(name))
    assert tried
    assert not failed
