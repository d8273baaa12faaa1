# SPDX-License-Identifier: MIT
"""What was recorded about devices and attributes, on kernels from 6.1 to 7.3, is what the model answers."""

from __future__ import annotations

import pytest

from golden import packs
from golden.devices import differences


@pytest.mark.slow
@pytest.mark.parametrize("name", packs.devices())
@pytest.mark.parametrize("pack", packs.OF_DEVICES)
def test_every_answer_is_the_kernels(pack: str, name: str) -> None:
    """Creation, addresses, interrupts, initialisation, bad pointers, and what becomes of KVM_RUN and of the VM.

    Also the registers of a vGIC: every word of its frames, the lines, which vCPU is meant, and random accesses.
    """
    steps, wrong = differences(packs.kernel(name.removesuffix(".steps")), name, pack)
    assert steps
    assert not wrong, f"{len(wrong)} of {steps} differ:\n" + "\n".join(wrong[:10])
