# SPDX-License-Identifier: MIT
"""Copies from and to a caller's memory: up to the first inaccessible byte, and never a crash."""

from __future__ import annotations

import os

import pytest
from pages import NOWHERE, PAGE, Edge

from kvmabi.device import ProcessMemory

BAD = (0, NOWHERE, 2**47, 2**63, 2**64 - 1, 2**64, 2**70)


@pytest.fixture
def memory() -> ProcessMemory:
    return ProcessMemory(os.getpid(), "me")


def test_copy_within_a_page(memory: ProcessMemory, edge: Edge) -> None:
    at = edge.put(b"payload")
    assert memory.read(at, 7) == b"payload"
    assert memory.write(at, b"another") == 7
    assert edge.tail(7) == b"another"


def test_copy_of_nothing(memory: ProcessMemory) -> None:
    """A copy of zero bytes does not access memory."""
    assert memory.read(NOWHERE, 0) == b""
    assert memory.write(NOWHERE, b"") == 0


@pytest.mark.parametrize("there", [0, 1, 100])
def test_copy_over_the_edge_is_short(memory: ProcessMemory, edge: Edge, there: int) -> None:
    """The bytes up to the edge are copied, and counted."""
    at = edge.put(b"x" * there)
    assert memory.read(at, there + 50) == b"x" * there
    assert memory.write(at, b"y" * (there + 50)) == there
    assert edge.tail(there) == b"y" * there


@pytest.mark.parametrize("address", BAD)
def test_bad_address(memory: ProcessMemory, address: int) -> None:
    assert memory.read(address, 8) == b""
    assert memory.write(address, b"8 bytes.") == 0


def test_copy_before_the_start_is_refused(memory: ProcessMemory, edge: Edge) -> None:
    """From a bad start address nothing is copied, even if later bytes are accessible."""
    assert memory.read(edge.end, PAGE) == b""


def test_process_that_is_gone() -> None:
    """A caller that died leaves nothing to copy."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    gone = ProcessMemory(child, "gone")
    assert gone.read(NOWHERE, 8) == b""
    assert gone.write(NOWHERE, b"8 bytes.") == 0
