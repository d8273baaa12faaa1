# SPDX-License-Identifier: MIT
"""The coverage-guided target, for atheris: everything that is done with a blob, from bytes to a plan and back."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["kvmabi.snapshot"]):
    from fuzz.blobs import chain


def one(data: bytes) -> None:
    """One input; anything but a clean end is a crash."""
    chain.run(data, piped=len(data) % 2 == 1, thorough=len(data) % 16 == 0)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
