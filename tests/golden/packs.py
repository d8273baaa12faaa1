# SPDX-License-Identifier: MIT
"""What real kernels answered, packed beside this file: hosts, golden records and traces.

``python packs.py FOLDER`` makes the packs anew from a folder with hosts/, golden/ and traces/.
"""

from __future__ import annotations

import atexit
import io
import json
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from kvmabi.model.system import System
from kvmabi.profiles import Host, Kernel, load_kernel
from kvmabi.profiles.host import from_json

HERE = Path(__file__).parent
FULL = os.environ.get("GOLDEN") == "full"
"""All records and steps, not the sample that every test run plays."""


@cache
def _unpacked(name: str) -> Path:
    """A folder with the files of a pack, which goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="kvmabi-golden-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(HERE / f"{name}.tar.xz", "r:xz") as members:
        for member in members:
            content = members.extractfile(member)
            if content is not None and "/" not in member.name:
                (folder / member.name).write_bytes(content.read())
    return folder


def traces() -> list[str]:
    """The names of the traces: KERNEL-OR-SERIES.HOST.KIND.trace."""
    return names("traces", ".trace")


def records() -> list[str]:
    """The names of the golden records: SERIES.HOST.jsonl."""
    return names("records", ".jsonl")


def devices() -> list[str]:
    """The names of the recordings about devices: KERNEL.steps."""
    return names("devices", ".steps")


@cache
def names(pack: str, ending: str) -> list[str]:
    """The files of a pack."""
    with tarfile.open(HERE / f"{pack}.tar.xz", "r:xz") as members:
        return sorted(member.name for member in members if member.name.endswith(ending))


def path(pack: str, name: str) -> str:
    """A file of a pack, as a path."""
    return str(_unpacked(pack) / name)


@cache
def host(name: str) -> Host:
    """A recorded host: as captured, or else as its golden records tell."""
    name = name.removeprefix("mainline.sweep-")
    if not (_unpacked("hosts") / f"{name}.json").exists():
        from golden.recorded_hosts import from_records

        return from_records(name)
    return from_json(name, json.loads((_unpacked("hosts") / f"{name}.json").read_text("utf-8")))


@cache
def kernel(name: str) -> Kernel:
    """A kernel profile."""
    return load_kernel(name)


@cache
def system(name: str) -> System:
    """A recorded host under the kernel that it was recorded with."""
    return System(host(name), kernel(host(name).kernel))


def read(name: str) -> Iterator[dict[str, Any]]:
    """The records of a file; lines that the recorder's console spoiled are left out."""
    with open(path("records", name), encoding="utf-8") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def pack(target: Path, members: list[tuple[str, bytes]]) -> None:
    """Make a pack of files, by name and content."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 64 << 20}]
    with lzma.open(target, "wb", filters=filters) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _make(folder: Path) -> None:
    found = {
        "hosts": [(file.name, file.read_bytes()) for file in sorted(folder.glob("hosts/*.json"))],
        "records": [],
        "traces": [],
    }
    for name, pattern in (("records", "golden/*/*.xz"), ("traces", "traces/*/*.xz")):
        for file in sorted(folder.glob(pattern)):
            found[name].append((f"{file.parent.name}.{file.stem}", lzma.decompress(file.read_bytes())))
    for name, members in found.items():
        pack(HERE / f"{name}.tar.xz", members)


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
