# SPDX-License-Identifier: MIT
"""What was recorded about devices and attributes, on kernels from 6.1 to 7.3, is what the model answers."""

from __future__ import annotations

import pytest

from golden import packs
from golden.devices import differences


@pytest.mark.slow
@pytest.mark.parametrize("name", packs.devices())
def test_every_answer_is_the_kernels(name: str) -> None:
    """Creation, addresses, interrupts, initialisation, bad pointers, and what becomes of KVM_RUN and of the VM."""
    steps, wrong = differences(packs.kernel(name.removesuffix(".steps")), name)
    assert steps
    assert not wrong, f"{len(wrong)} of {steps} differ:\n" + "\n".join(wrong[:10])
