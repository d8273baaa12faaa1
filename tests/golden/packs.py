# SPDX-License-Identifier: MIT
"""The answers of real kernels, packed next to this file: hosts, golden records and traces.

``python packs.py FOLDER`` replaces the packs by the files of a folder with hosts/, golden/ and traces/.
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
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kvmabi.errors import UsageError
from kvmabi.model.system import System
from kvmabi.profiles import Host, Kernel, load_kernel
from kvmabi.profiles.host import from_json

HERE = Path(__file__).parent
FULL = os.environ.get("GOLDEN") == "full"
"""All records and steps, instead of the sample that every test run plays."""
OF_DEVICES = ("devices", "vgic")
"""The packs of recordings about devices, which have the kernels of the first."""


@cache
def _unpacked(name: str) -> Path:
    """A folder with the files of a pack, removed by ``remove`` or at the end of this process."""
    folder = Path(tempfile.mkdtemp(prefix="kvmabi-golden-"))
    _folders.append(folder)
    with tarfile.open(HERE / f"{name}.tar.xz", "r:xz") as members:
        for member in members:
            content = members.extractfile(member)
            if content is not None and "/" not in member.name:
                (folder / member.name).write_bytes(content.read())
    return folder


_folders: list[Path] = []


@atexit.register
def remove() -> None:
    """Remove the unpacked files; the next use unpacks them again."""
    _unpacked.cache_clear()
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


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
    """A recorded host: as captured, else derived from its golden records."""
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
    """The records of a file, without lines that the recorder's console corrupted."""
    with open(path("records", name), encoding="utf-8") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue


Members = list[tuple[str, bytes]]
"""The files of a pack: name and content."""


def pack(target: Path, members: Members) -> None:
    """Replace a pack, once the new one is written."""
    replace({target: members})


def replace(packs: dict[Path, Members]) -> None:
    """Replace packs, once all new ones are written under temporary names; a failure leaves the old packs."""
    temporary = {target: target.with_name(f".{target.name}.new") for target in packs}
    try:
        for target, members in packs.items():
            _write(temporary[target], members)
        for target, file in temporary.items():
            os.replace(file, target)
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)


def _write(target: Path, members: Members) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 64 << 20}]
    with lzma.open(target, "wb", filters=filters) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _members(folder: Path) -> dict[str, Members]:
    """The files for each pack. Raises UsageError for a folder that does not exist or lacks the files of a pack."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    members: dict[str, Members] = {
        "hosts": [(file.name, file.read_bytes()) for file in sorted(folder.glob("hosts/*.json"))]
    }
    for name, pattern in (("records", "golden/*/*.xz"), ("traces", "traces/*/*.xz")):
        files = sorted(folder.glob(pattern))
        try:
            members[name] = [(f"{file.parent.name}.{file.stem}", lzma.decompress(file.read_bytes())) for file in files]
        except (OSError, lzma.LZMAError) as error:
            raise UsageError(f"{folder}: {pattern}: {error}") from None
    missing = [name for name, files_of_pack in members.items() if not files_of_pack]
    if missing:
        raise UsageError(f"{folder}: no files for {', '.join(missing)}; the packs are unchanged")
    return members


def main(arguments: Sequence[str]) -> int:
    """Replace the packs by a folder's files; returns the exit status."""
    try:
        if len(arguments) != 1:
            raise UsageError("usage: packs.py FOLDER")
        replace({HERE / f"{name}.tar.xz": members for name, members in _members(Path(arguments[0])).items()})
    except (UsageError, OSError) as error:
        print(f"packs.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
