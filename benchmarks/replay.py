# SPDX-License-Identifier: MIT
"""The rate at which the model replays recorded steps, compared with reading the same file only.

python benchmarks/replay.py TRACE HOST [ROUNDS]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from kvmabi.model.system import System
from kvmabi.profiles import Host, load_host, load_kernel
from kvmabi.steps.replay import Result, machine, replay
from kvmabi.steps.trace import Trace


def rounds(count: int, act: Callable[[], int]) -> tuple[int, list[float]]:
    """Repeat an action. Returns the count that it returns, and the CPU time of each round in seconds."""
    taken, counted = [], 0
    for _ in range(count):
        start = time.process_time()
        counted = act()
        taken.append(time.process_time() - start)
    return counted, taken


def rates(path: str, host: Host, times: int) -> tuple[int, list[float], list[float]]:
    """The number of steps, and the seconds of each round of replaying and of reading only.

    The first round builds the register maps that later rounds reuse. Prints answers that differ.
    """
    doer = machine(System(host, load_kernel(host.kernel)))

    def replayed() -> int:
        result = Result()
        replay(Trace(path), doer, result)
        if result.mismatches:
            print("\n".join(map(str, result.first)))
        return result.steps

    steps, taken = rounds(times, replayed)
    _, reading = rounds(times, lambda: sum(1 for _ in Trace(path).steps()))
    return steps, taken, reading


def main(path: str, host_name: str, times: int) -> None:
    """Print the rates and their ratio."""
    steps, taken, reading = rates(path, load_host(host_name), times)
    print(f"{steps} steps: {steps / min(taken):,.0f} a second, {steps / taken[0]:,.0f} the first time,", end=" ")
    print(f"{steps / min(reading):,.0f} when only read")
    print(f"replaying takes {min(taken) / min(reading):.1f} times as long as reading")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else 5)
