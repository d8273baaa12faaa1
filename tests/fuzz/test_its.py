# SPDX-License-Identifier: MIT
"""Random steps on an ITS: they are steps, map and save, and are careful where a kernel would die."""

from __future__ import annotations

from random import Random

import pytest

from kvmabi.device import open_system
from kvmabi.events import EventLog
from kvmabi.fuzz import its
from kvmabi.profiles import load_host, load_kernel
from kvmabi.steps.doer import Doer
from kvmabi.steps.modelport import ModelPort

SEQUENCES = 60


@pytest.mark.parametrize("careful", [True, False])
def test_careful_sequences_spare_linux_6_1(careful: bool) -> None:
    """Without care there are steps that this kernel dies of; with it there are none, and tables are saved as well."""
    doer = Doer(ModelPort(open_system(load_host("neoverse-v1"), load_kernel("linux-6.1"), EventLog(kept=0))))
    died = saved = 0
    for number in range(SEQUENCES):
        random = Random(f"f.{number}")
        for step in ("N 2", "I 0 5 0", "I 1 5 0", *its.sequence(random, 2, careful=careful)):
            answer = doer.do(step)
            died += answer == "EIO" and "dies here" in doer.reason
            saved += step.startswith("r ") and answer != "OK 00*64."
    doer.close()
    assert (died == 0) == careful
    assert saved > SEQUENCES // 2
