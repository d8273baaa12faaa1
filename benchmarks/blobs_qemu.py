# SPDX-License-Identifier: MIT
"""How many QEMU streams one core reads a second, and the memory that this takes.

python benchmarks/blobs_qemu.py FILE... [--seconds S] [--walk] [--profile]

The files are unpacked once and read from memory. --walk reads them as from a pipe: RAM is then passed record by record.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import sys
import time
import tracemalloc
from pathlib import Path
from typing import BinaryIO, cast

from kvmabi.snapshot import packed
from kvmabi.snapshot.opening import read_stream

MOST_BYTES = 8 << 20
SHOWN = 25


class Pipe(io.BytesIO):
    """Bytes that cannot be seeked."""

    def seekable(self) -> bool:
        return False


def unpacked(path: str) -> bytes:
    """A file's bytes, without its compression; b"" for one that is larger than MOST_BYTES."""
    data = Path(path).read_bytes()
    kind = packed.kind_of(data)
    stream = packed.unpacked(cast(BinaryIO, io.BytesIO(data)), kind, len(data)) if kind else io.BytesIO(data)
    whole = stream.read(MOST_BYTES + 1)
    return whole if len(whole) <= MOST_BYTES else b""


def once(blobs: list[bytes], kind: type[io.BytesIO]) -> None:
    """Read every blob."""
    for blob in blobs:
        read_stream(cast(BinaryIO, kind(blob)), "blob")


def main() -> int:
    """Prints the rate, its figures and the peak of memory; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--walk", action="store_true", help="as from a pipe")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    options = parser.parse_args()
    blobs = [blob for blob in map(unpacked, options.files) if blob]
    kind = Pipe if options.walk else io.BytesIO
    once(blobs, kind)
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(once, blobs, kind)
        pstats.Stats(profile).sort_stats("tottime").print_stats(SHOWN)
        return 0
    rounds, taken = 0, 0.0
    while taken < options.seconds:
        start = time.process_time()
        once(blobs, kind)
        taken += time.process_time() - start
        rounds += 1
    tracemalloc.start()
    once(blobs, kind)
    peak = tracemalloc.get_traced_memory()[1]
    count, size = rounds * len(blobs), sum(map(len, blobs)) / len(blobs)
    print(f"{len(blobs)} streams of {size / 1e3:,.0f} KB: {count / taken:,.0f} a second", end=" ")
    print(f"({taken / count * 1e6:,.0f} µs each), {peak / 1e6:.1f} MB of memory at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
