# SPDX-License-Identifier: MIT
"""The register file: memory that is used again shows nothing of what it held, and shared memory is not used again."""

from __future__ import annotations

import gc
import mmap
import os

from hypothesis import given
from hypothesis import strategies as st

from kvmabi.model.state import SIZE_BYTES, RegisterFiles

MOST = 2 * RegisterFiles.KEPT


@given(st.lists(st.integers(0, SIZE_BYTES - 1), min_size=1, max_size=9), st.integers(1, MOST))
def test_a_new_file_is_zero_whatever_those_before_held(places: list[int], count: int) -> None:
    """Also after more files were closed than the cache holds."""
    pool = RegisterFiles()
    for _ in range(2):
        files = [pool.take() for _ in range(count)]
        for file in files:
            assert file.memory[:] == bytes(SIZE_BYTES)
            for place in places:
                file.memory[place : place + 1] = b"\xa5"
        for file in files:
            file.close()
    pool.close()


def test_two_open_files_share_nothing() -> None:
    """Each file that is taken has memory of its own."""
    pool = RegisterFiles()
    pool.take().close()
    one, other = pool.take(), pool.take()
    one.memory[:1] = b"\1"
    assert other.memory[:1] == b"\0"
    one.close()
    other.close()
    pool.close()


def test_another_process_can_map_the_memory() -> None:
    """What is written through the memfd is what the file holds."""
    pool = RegisterFiles()
    file = pool.take()
    with mmap.mmap(file.fd, SIZE_BYTES) as mapping:
        mapping[5] = 7
        assert file.memory[5:6] == b"\7"
    file.close()
    pool.close()


def test_shared_memory_is_not_used_again() -> None:
    """The process that mapped it could go on writing into another vCPU's registers."""
    pool = RegisterFiles()
    file = pool.take()
    file.shared = True
    file.close()
    assert pool.take() is not file
    pool.close()


def test_child_of_fork_leaves_the_parents_memory_alone() -> None:
    """Its closing zeroes nothing, and its next file is not one of the parent's spare ones."""
    pool = RegisterFiles()
    file = pool.take()
    pool.take().close()
    file.memory[:1] = b"\1"
    child = os.fork()
    if not child:
        file.close()
        pool.take().memory[:1] = b"\t"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert file.memory[:1] == b"\1"
    assert pool.take().memory[:1] == b"\0"
    pool.close()


def test_dropped_files_leave_no_descriptor() -> None:
    """A pool that nobody closes gives its memory and descriptors back when it is collected."""
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    pool = RegisterFiles()
    for file in [pool.take() for _ in range(3)]:
        file.close()
    del pool, file
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before
