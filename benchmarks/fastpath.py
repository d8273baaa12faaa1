# SPDX-License-Identifier: MIT
"""What register accesses of an unmodified program cost, with and without the fast path and reports, in turns.

Run it with: .venv/bin/python benchmarks/fastpath.py [ROUNDS]
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).parent
LENGTHS = (128, 256, 512, 1024, 2048)
FLAGS = ("-std=gnu11", "-O2", f"-I{HERE.parent / 'include'}")
VCPUS = "512"
"""Measured without reports: the verdict compares every save with every restore."""
WAYS = {
    "reports on": ((), "1"),
    "reports off": (("--report", "none"), "1"),
    "server only": ((), "0"),
}
"""Options of ``kvmabi run``, and KVMABI_FASTPATH."""


def host(folder: Path, longest_bits: int = LENGTHS[-1]) -> Path:
    """The demo's host with vectors of every length up to the longest, in bits."""
    text = files("kvmabi.profiles").joinpath("hosts/sme-demo.toml").read_text("utf-8")
    path = folder / f"host-{longest_bits}.toml"
    lengths = [bits for bits in LENGTHS if bits <= longest_bits]
    path.write_text(re.sub(r"(?m)^(s[vm]e_vector_bits) = .*$", rf"\1 = {lengths}", text), "utf-8")
    return path


def compiled(folder: Path, compiler: Sequence[str] = ("cc",), *flags: str, source: str = "fastpath.c") -> Path:
    """The program, compiled into a folder under a name of its own; CalledProcessError if the compiler cannot."""
    program = folder / "-".join([Path(source).stem, Path(compiler[0]).name, *(flag.strip("-") for flag in flags)])
    command = [*compiler, *FLAGS, *flags, str(HERE / source), "-o", str(program)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program


def command(host: Path, way: str) -> list[str]:
    """``kvmabi run`` with the options of a way; the program follows."""
    options, _ = WAYS[way]
    return [sys.executable, "-m", "kvmabi", "run", "--saves", "none", "--host", str(host), *options, "--"]


def environment(way: str) -> dict[str, str]:
    """The variables of a way."""
    return os.environ | {"KVMABI_FASTPATH": WAYS[way][1]}


def parsed(lines: str) -> dict[str, float]:
    """Nanoseconds by name, from the program's output."""
    return {name: float(value) for name, _, value in (line.partition("|") for line in lines.splitlines())}


def figures(program: Path, host: Path, way: str, *arguments: str) -> dict[str, float]:
    """Nanoseconds by name."""
    argv = [*command(host, way), str(program), *arguments]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment(way))
    return parsed(done.stdout)


def main(rounds: int) -> None:
    """Print the medians, and their ratio to a system call of the same round."""
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(Path(folder))
        profile = host(Path(folder))
        measured: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for way in WAYS:
                for name, value in figures(program, profile, way).items():
                    measured.setdefault((name, way), []).append(value)
            for name, value in figures(program, profile, "reports off", VCPUS).items():
                measured.setdefault((name, "reports off"), []).append(value)
    print(f"{f'µs, medians of {rounds} rounds':40}" + "".join(f"{way:>14}" for way in WAYS))
    for name in dict.fromkeys(name for name, _ in measured):
        found = [measured.get((name, way)) for way in WAYS]
        print(f"{name:40}" + "".join(f"{statistics.median(v) / 1e3:14.3f}" if v else " " * 14 for v in found))
    print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
