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
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).parent
LENGTHS = "[128, 256, 512, 1024, 2048]"
VCPUS = "512"
"""Measured without reports: the verdict compares every save with every restore."""
WAYS = {
    "reports on": ((), "1"),
    "reports off": (("--report", "none"), "1"),
    "server only": ((), "0"),
}
"""Options of ``kvmabi run``, and KVMABI_FASTPATH."""


def host(folder: Path) -> Path:
    """The demo's host with vectors of 2048 bits."""
    text = files("kvmabi.profiles").joinpath("hosts/sme-demo.toml").read_text("utf-8")
    path = folder / "host.toml"
    path.write_text(re.sub(r"(?m)^(s[vm]e_vector_bits) = .*$", rf"\1 = {LENGTHS}", text), "utf-8")
    return path


def figures(program: Path, host: Path, way: str, *arguments: str) -> dict[str, float]:
    """Nanoseconds by name."""
    options, fast = WAYS[way]
    command = [sys.executable, "-m", "kvmabi", "run", "--saves", "none", "--host", str(host), *options]
    environment = os.environ | {"KVMABI_FASTPATH": fast}
    done = subprocess.run(
        [*command, "--", str(program), *arguments], check=True, capture_output=True, text=True, env=environment
    )
    return {name: float(value) for name, _, value in (line.partition("|") for line in done.stdout.splitlines())}


def main(rounds: int) -> None:
    """Print the medians, and their ratio to a system call of the same round."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "fastpath")
        flags = ["-std=gnu11", "-O2", f"-I{HERE.parent / 'include'}"]
        subprocess.run(["cc", *flags, str(HERE / "fastpath.c"), "-o", str(program)], check=True)
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
