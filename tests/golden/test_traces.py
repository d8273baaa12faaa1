# SPDX-License-Identifier: MIT
"""Every recorded trace replays on the model without a mismatch."""

from __future__ import annotations

from itertools import islice

import pytest

from golden import packs
from kvmabi.steps.replay import Result, machine, replay
from kvmabi.steps.trace import Trace

SAMPLE = 40_000  # steps of one trace; the long trace of IDs alone has more


class Sampled(Trace):
    """A trace, or its first steps unless all are requested."""

    def steps(self):
        """See Trace.steps."""
        return super().steps() if packs.FULL else islice(super().steps(), SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", packs.traces())
def test_trace_replays_without_a_mismatch(name: str) -> None:
    """Each step's answer is the kernel's, for every register family."""
    trace = Sampled(packs.path("traces", name))
    result = Result()
    replay(trace, machine(packs.system(trace.host)), result)
    assert result.steps
    assert not result.mismatches, "\n".join(map(str, result.first))
