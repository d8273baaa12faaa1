# SPDX-License-Identifier: MIT
"""Against recorded traces: sequences drawn by seed, and an answer that differs, shrunk to the steps that matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmabi.fuzz import Generator, World, recorded
from kvmabi.model.system import System
from kvmabi.profiles import load_host, load_kernel
from kvmabi.steps.replay import machine
from kvmabi.steps.trace import Trace

HOST, KERNEL = "sme-demo", "sme-v12"
SEQUENCES = 30


@pytest.fixture
def trace(tmp_path: Path, world: World) -> Path:
    """A trace as the model itself answers it, of steps of every kind."""
    doer = machine(System(load_host(HOST), load_kernel(KERNEL)))
    generator = Generator(1, world)
    lines = [f"# host {HOST}"]
    for number in range(SEQUENCES):
        lines.append(f"# seq 1.{number}")
        for text in generator.sequence(number):
            lines.append(f"{text}\t{doer.do(text)}")
    doer.close()
    path = tmp_path / "some.trace"
    path.write_text("\n".join(lines) + "\n")
    return path


def hunted(path: Path, seed: int, steps: int) -> tuple[list[recorded.Finding], int]:
    counts = [0]
    traces = [(Trace(str(path)), load_host(HOST), load_kernel(KERNEL))]
    return [finding for finding, _, _ in recorded.hunt(traces, seed, steps, counts.append)], counts[-1]


def test_sequences_are_cut_at_new_vms(trace: Path) -> None:
    """Every sequence begins with a new VM."""
    sequences = list(recorded.sequences(Trace(str(trace))))
    assert len(sequences) == SEQUENCES
    assert all(sequence[0][0].startswith("N ") for sequence in sequences)


def test_an_agreeing_record(trace: Path) -> None:
    """Equal answers have no findings; the number of steps is the one requested, or all that exist."""
    findings, done = hunted(trace, 5, 300)
    assert findings == []
    assert 300 <= done < 600
    assert hunted(trace, 5, 10**9)[1] == sum(1 for line in trace.read_text().splitlines() if line[0] != "#")


def test_a_record_that_differs(trace: Path) -> None:
    """A recorded answer that the model does not give is found, without the reads and refusals before it."""
    lines = trace.read_text().splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("F ") and line.endswith("\tOK"))
    lines[place] = lines[place].replace("\tOK", "\tEIO")
    trace.write_text("\n".join(lines) + "\n")
    findings, _ = hunted(trace, 2, 10**9)
    assert len(findings) == 1
    (finding,) = findings
    assert (finding.expected[-1], finding.got[-1]) == ("EIO", "OK")
    assert finding.steps[0].startswith("N ")
    assert all(answer.startswith("OK") for answer in finding.expected[:-1])
    assert not any(step[0] in "GBgLl" for step in finding.steps)
