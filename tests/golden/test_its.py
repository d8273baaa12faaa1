# SPDX-License-Identifier: MIT
"""What was recorded about an ITS and the GIC's CPU interfaces on Linux 6.1 to 7.3 is what the model answers."""

from __future__ import annotations

import pytest

from golden import packs
from golden.devices import differences


@pytest.mark.parametrize("name", packs.names("its", ".steps"))
def test_every_answer_is_the_kernels(name: str) -> None:
    """Registers, commands, saved and restored tables byte for byte, pending LPIs, messages, CPU interfaces."""
    steps, wrong = differences(packs.kernel(name.removesuffix(".steps")), name, "its")
    assert steps
    assert not wrong, f"{len(wrong)} of {steps} differ:\n" + "\n".join(wrong[:10])
