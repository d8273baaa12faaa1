# SPDX-License-Identifier: MIT
"""How many recorded steps a second the model answers, beside reading the same file and doing nothing.

python benchmarks/replay.py TRACE HOST [ROUNDS]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from kvmabi.profiles import load_host, load_kernel
from kvmabi.replay.runner import Result, replay
from kvmabi.replay.trace import Trace


def best(rounds: int, act: Callable[[], int]) -> tuple[int, float]:
    """What an action counts, and the least processor time of some rounds, in seconds."""
    least = float("inf")
    count = 0
    for _ in range(rounds):
        start = time.process_time()
        count = act()
        least = min(least, time.process_time() - start)
    return count, least


def main(path: str, host_name: str, rounds: int) -> None:
    """Print both rates and their ratio."""
    host = load_host(host_name)
    kernel = load_kernel(host.kernel)

    def replayed() -> int:
        result = Result()
        replay(Trace(path), host, kernel, result)
        if result.mismatches:
            print("\n".join(map(str, result.first)))
        return result.steps

    steps, seconds = best(rounds, replayed)
    _, reading = best(rounds, lambda: sum(1 for _ in Trace(path).steps()))
    print(f"{steps} steps: {steps / seconds:,.0f} a second, {steps / reading:,.0f} when only read")
    print(f"replaying takes {seconds / reading:.1f} times as long as reading")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else 5)
