# SPDX-License-Identifier: MIT
"""How fast blobs are read and judged, and what memory that takes whatever the file.

    python benchmarks/blobs.py own              blobs of our format, in memory, SVE 256, SME 512, ZA on
    python benchmarks/blobs.py qemu [FILE...]   QEMU's streams, in memory (default: those of the tests)
    python benchmarks/blobs.py memory [--gib N] QEMU's streams of N GiB of RAM, as a file, a pipe, and mapped-ram
    python benchmarks/blobs.py fleet [--files N...] [--different N]    ``blob validate --manifest`` over N files

Rates are of CPU time of one core, the median of some rounds; those of a fleet are by the clock, on a machine of that
load.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import os
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import BinaryIO, cast

import kvmabi
from kvmabi import regid
from kvmabi.model.row import size_of
from kvmabi.snapshot import opening, packed
from kvmabi.snapshot.formats import own
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.target import Target
from kvmabi.snapshot.validate import validate

TESTS = Path(__file__).resolve().parent.parent / "tests"
ROUNDS = 7
SECONDS = 0.4
FILLED = ("core", "sve", "sme")
FIXED = ("sve_vls", "sme_vls", "pstate")
MOST_BYTES = 8 << 20
PAGE_BYTES = 4096
RECORD = (0x28).to_bytes(8, "big") + bytes(range(256)) * (PAGE_BYTES // 256)
"""A page of RAM in a stream, of the block of the page before."""
SHOWN = 25


class Pipe(io.BytesIO):
    """Bytes that cannot be seeked."""

    def seekable(self) -> bool:
        """They cannot."""
        return False


class Counted(io.FileIO):
    """A file that counts what is read of it."""

    count_bytes = 0

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        """Read, and count."""
        data = super().read(size) or b""
        self.count_bytes += len(data)
        return data


def guest(filling: int = 0) -> Snapshot:
    """The vCPU: every vector, row of ZA and general register holds data."""
    host = replace(kvmabi.load_host("sme-demo"), sve_vector_bits=(128, 256), sme_vector_bits=(256, 512))
    with kvmabi.open(host=host, kept_events=0, checked=False) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve", "sme"})
        vcpu.finalize()
        vcpu["svcr"] = 2
        for id in vcpu.reg_list():
            register = regid.decode(id)
            if register.family in FILLED and register.name not in FIXED:
                vcpu[id] = bytes(1 + (byte + filling) % 255 for byte in range(size_of(id)))
        return kvmabi.save(vcpu)


def per_second(work: Callable[[], object]) -> float:
    """The median rate of some rounds."""
    rates = []
    for _ in range(ROUNDS):
        count, start = 0, time.process_time()
        while (passed := time.process_time() - start) < SECONDS:
            for _ in range(20):
                work()
            count += 20
        rates.append(count / passed)
    return statistics.median(rates)


def show(what: str, rate: float) -> None:
    """One figure."""
    print(f"{what:44}{rate:10,.0f} a second")


def run_own() -> None:
    """Our format."""
    snapshot = guest()
    blob = own.write(snapshot)
    target = Target.of(host="sme-demo")
    print(f"our format: {len(snapshot.vcpus[0].registers)} registers, {len(blob):,} bytes")
    show("read", per_second(lambda: opening.read_bytes(blob)))
    show("read and validated", per_second(lambda: validate(opening.read_bytes(blob))))
    show("read and validated for a host", per_second(lambda: validate(opening.read_bytes(blob), target)))
    show("written", per_second(lambda: own.write(snapshot)))


def streams(files: Sequence[str]) -> list[bytes]:
    """The files' content without compression; those of the tests by default. Very large ones are left out."""
    if not files:
        sys.path.insert(0, str(TESTS))
        from snapshot import qemu_samples

        return [qemu_samples.sample(name) for name in qemu_samples.names()]
    blobs = []
    for file in files:
        data = Path(file).read_bytes()
        kind = packed.kind_of(data)
        stream = packed.unpacked(cast(BinaryIO, io.BytesIO(data)), kind, len(data)) if kind else io.BytesIO(data)
        blobs.append(stream.read(MOST_BYTES + 1))
    return [blob for blob in blobs if len(blob) <= MOST_BYTES]


def run_qemu(files: Sequence[str], profile: bool) -> None:
    """QEMU's streams."""
    blobs = streams(files)
    turn = cycle(blobs)
    target = Target.of(host="qemu-max")

    def read(kind: type[io.BytesIO]) -> Snapshot:
        return opening.read_stream(cast(BinaryIO, kind(next(turn))), "blob")

    if profile:
        profiled = cProfile.Profile()
        profiled.runcall(lambda: [validate(read(io.BytesIO)) for _ in range(20 * len(blobs))])
        pstats.Stats(profiled).sort_stats("tottime").print_stats(SHOWN)
        return
    print(f"{len(blobs)} streams of {statistics.mean(map(len, blobs)) / 1e3:,.0f} KB in the mean")
    show("read", per_second(lambda: read(io.BytesIO)))
    show("read as from a pipe", per_second(lambda: read(Pipe)))
    show("read and validated", per_second(lambda: validate(read(io.BytesIO))))
    show("read and validated for a host", per_second(lambda: validate(read(io.BytesIO), target)))


def large(stream: bytes, size_bytes: int) -> Iterator[bytes]:
    """A stream with ``size_bytes`` of pages more in its RAM: before the last part of that section."""
    footer = b"\x7e" + stream[stream.index(b"\x03ram") - 4 :][:4]
    part = b"\x02" + footer[1:]
    at = stream.index(b"\x10" + footer) + 1 + len(footer)
    yield stream[:at]
    first = (0x08).to_bytes(8, "big") + b"\x0dmach-virt.ram" + bytes(PAGE_BYTES)
    chunk = RECORD * 256
    yield part + first
    for _ in range(size_bytes // len(chunk)):
        yield chunk
    yield (0x10).to_bytes(8, "big") + footer
    yield stream[at:]


def growth(work: Callable[[], object]) -> tuple[float, float, object]:
    """The growth of memory in MiB, the seconds and the result (as text) of some work in a process of its own."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
            text = str(work())
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            os.write(write_end, f"{(after - before) / 1024} {time.perf_counter() - began} {text}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        grown, seconds, text = pipe.read().split(" ", 2)
    os.waitpid(pid, 0)
    return float(grown), float(seconds), text


def counted(path: Path) -> str:
    """Reads and judges a file; how many of its bytes were read."""
    with Counted(path) as file:
        report = validate(opening.read_stream(cast(BinaryIO, file), str(path)))
        return f"{file.count_bytes / 1e3:,.0f} KB of {path.stat().st_size / 2**30:.2f} GiB read, {report.counts}"


def piped(path: Path) -> str:
    """Reads and judges a file through a pipe."""
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as cat:
        report = validate(opening.read_stream(cast(BinaryIO, cat.stdout), "pipe"))
        return f"{path.stat().st_size / 2**30:.2f} GiB, {report.counts}"


def mapped(path: Path, size_bytes: int) -> None:
    """A sparse file of mapped-ram: a sample whose first block of RAM is larger."""
    sys.path.insert(0, str(TESTS))
    from fuzz.blobs.samples import MAPPED_BLOCK, samples
    from snapshot.qemu_samples import MAPPED

    stream = samples()[MAPPED]
    total_at = stream.index(b"\x03ram") + 4 + 8
    total = int.from_bytes(stream[total_at : total_at + 8], "big")
    block_at = total_at + 8
    size_at = block_at + 1 + stream[block_at]
    pages_at = size_at + 8 + MAPPED_BLOCK.size
    with path.open("wb") as file:
        file.write(stream[:total_at] + (total - PAGE_BYTES + size_bytes).to_bytes(8, "big"))
        file.write(stream[block_at:size_at] + size_bytes.to_bytes(8, "big") + stream[size_at + 8 : pages_at])
        file.seek(size_bytes, io.SEEK_CUR)
        file.write(stream[pages_at + PAGE_BYTES :])


def run_memory(gib: float) -> None:
    """Large streams: growth of memory, and what is read of them."""
    size_bytes = int(gib * 2**30)
    stream = streams(())[0]
    validate(opening.read_bytes(stream))  # what is read once is no growth
    with tempfile.TemporaryDirectory() as folder:
        path, sparse = Path(folder, "stream"), Path(folder, "mapped-ram")
        with path.open("wb") as file:
            file.writelines(large(stream, size_bytes))
        mapped(sparse, 4 * size_bytes)
        kinds = (("a file", counted, path), ("a pipe", piped, path), ("mapped-ram", counted, sparse))
        for what, work, where in kinds:
            grown, seconds, text = growth(lambda work=work, where=where: work(where))
            print(f"{what:12}{grown:6.1f} MiB more memory, {seconds:6.2f} s: {text}")


def run_fleet(counts: Sequence[int], different: int, processes: int) -> None:
    """``blob validate --manifest`` over generated files, each named many times with other etags."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        blob = own.write(guest())
        snapshot = opening.read_bytes(blob)
        x0 = regid.parse("x0")
        for number in range(min(different, max(counts))):
            snapshot.vcpus[0].registers[x0] = number.to_bytes(8, "little")
            path = Path(folder, f"{number}.blob")
            path.write_bytes(own.write(snapshot))
            files.append(path)
        for count in counts:
            manifest = Path(folder, f"manifest-{count}")
            with manifest.open("w") as lines:
                lines.writelines(f"{files[n % len(files)]}\t{len(blob)}\tv{n}\n" for n in range(count))
            words = ["blob", "validate", "--manifest", str(manifest), "--out", str(Path(folder, f"results-{count}"))]
            command = [sys.executable, "-m", "kvmabi", *words, "--processes", str(processes)]
            began = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                _, _, usage = os.wait4(process.pid, 0)
                process.returncode = 0
            seconds = time.perf_counter() - began
            cpu = usage.ru_utime + usage.ru_stime
            print(
                f"{count:9,} files: {count / seconds:7,.0f} a second, parent and workers {cpu:6.1f} s of CPU, "
                f"at most {usage.ru_maxrss / 1024:.0f} MiB each; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def main() -> int:
    """Prints figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("own")
    qemu = kinds.add_parser("qemu")
    qemu.add_argument("files", nargs="*", metavar="FILE")
    qemu.add_argument("--profile", action="store_true", help="print where the time goes instead")
    memory = kinds.add_parser("memory")
    memory.add_argument("--gib", type=float, default=2.0)
    fleet = kinds.add_parser("fleet")
    fleet.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000])
    fleet.add_argument("--different", type=int, default=20_000, help="how many of the files differ")
    fleet.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    match options.kind:
        case "own":
            run_own()
        case "qemu":
            run_qemu(options.files, options.profile)
        case "memory":
            run_memory(options.gib)
        case _:
            run_fleet(options.files, options.different, options.processes)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
