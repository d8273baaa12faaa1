# SPDX-License-Identifier: MIT
"""Shared memory: one descriptor each, and no access after the end that is not noticed."""

from __future__ import annotations

import mmap
import os

import pytest

from kvmabi.memfd import MemFd


def test_one_descriptor_and_nothing_left() -> None:
    """The memory costs one descriptor while it is open and none afterwards."""
    before = len(os.listdir("/proc/self/fd"))
    shared = MemFd("test", 8192)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    shared.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_mapping_elsewhere_sees_the_same_bytes() -> None:
    """In both directions."""
    shared = MemFd("test", 8192)
    with mmap.mmap(shared.fd, 8192) as other:
        other[:3] = b"abc"
        assert shared.memory[:3] == b"abc"
        shared.memory[1:2] = b"B"
        assert other[:3] == b"aBc"
    shared.close()


def test_buffer_in_use_stays_mapped() -> None:
    """A reference that outlives the owner reads the last bytes; it does not crash."""
    memory = MemFd("test", 4096).memory
    memory[:1] = b"x"
    assert memory[:2] == b"x\0"


def test_memory_that_cannot_be_mapped_is_an_error() -> None:
    """And leaves no descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="mapped"):
        MemFd("test", 1 << 60)
    assert len(os.listdir("/proc/self/fd")) == before
