# SPDX-License-Identifier: MIT
"""Saves that outlive a run: a folder with a file for each, named after its content, for the run that restores it."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kvmabi import gicnames, wholefile
from kvmabi.errors import UsageError
from kvmabi.events import PSEUDO_REGISTERS
from kvmabi.order.controllers import Reads
from kvmabi.order.saves import Save

FORMAT = "kvmabi-save-1"
MOST_FILES = 256
MOST_BYTES = 4 << 20
MOST_VALUE_BYTES = 2048
LONG_BYTES = 8
MOST_AGE_SECONDS = 7 * 24 * 3600
NEWEST = 64
"""How many saves of a run are kept."""
SUFFIX = ".save"
NAME = re.compile(r"[0-9a-f]{32}\.save")
MOST_RUN_CHARS = 200
SESSION = "saves-"
PRIVATE = 0o700


class KeptSaves:
    """The saves in a folder, which is created when there is one to keep. Files that are not saves are left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> list[Save]:
        """The saves, the oldest first; a file that is not one of ours, or is damaged, is not among them."""
        found = []
        for path in self._paths():
            with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
                if path.stat().st_size <= MOST_BYTES:
                    found.append((path.stat().st_mtime, _parsed(path.read_bytes())))
        return [save for _, save in sorted(found, key=lambda item: item[0])]

    def keep(self, saves: Iterable[Save], run: str) -> None:
        """Add the newest saves of a run, described in words, and remove old ones. Errors: UsageError."""
        run = "".join(char if char.isprintable() else "?" for char in run)[:MOST_RUN_CHARS]
        newest = [save for save in saves if not save.from_run][-NEWEST:]
        if not newest:
            return
        try:
            import hashlib  # here: a run without saves starts without it

            self.folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            for save in newest:
                content = _content(save)
                name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32] + SUFFIX
                if (self.folder / name).exists():
                    os.utime(self.folder / name)
                    continue
                when = time.time() - (time.monotonic() - save.seconds)
                text = json.dumps({"format": FORMAT, "run": run, "when": when, **content}, separators=(",", ":"))
                wholefile.replace(self.folder / name, text + "\n")
            self._clean()
        except OSError as error:
            raise UsageError(f"{self.folder}: cannot keep saves: {error.strerror}") from None

    def _paths(self) -> list[Path]:
        """Files that have the name of a save."""
        with suppress(OSError):
            return [path for path in self.folder.iterdir() if NAME.fullmatch(path.name) and path.is_file()]
        return []

    def _clean(self) -> None:
        """Remove saves beyond the number and, where commands share them unasked, the age that are kept."""
        ages = []
        for path in self._paths():
            with suppress(OSError):
                ages.append((path.stat().st_mtime, path))
        oldest = time.time() - MOST_AGE_SECONDS if self.folder.name.startswith(SESSION) else 0.0
        for place, (when, path) in enumerate(sorted(ages, reverse=True)):
            if place >= MOST_FILES or when < oldest:
                path.unlink(missing_ok=True)


def run_name(program: str) -> str:
    """How saves of this process's run of a program are described."""
    return f"{Path(program).name}, process {os.getpid()}"


def session_folder() -> Path | None:
    """The folder that commands of one shell or script share: it goes by the parent process and is the user's alone.

    Folders of processes that have ended are removed. None if there is no place for it.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"kvmabi-{os.getuid()}"
    parent = _born(os.getppid())
    if parent is None:
        return None
    try:
        base.mkdir(mode=PRIVATE, exist_ok=True)
        about = base.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        return None
    for folder in _sessions_over(base):
        for path in folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            folder.rmdir()
    return base / f"{SESSION}{os.getppid()}-{parent}"


def _sessions_over(base: Path) -> Iterator[Path]:
    for folder in base.glob(f"{SESSION}*-*"):
        pid, _, born = folder.name.removeprefix(SESSION).partition("-")
        if pid.isdecimal() and _born(int(pid)) != born:
            yield folder


def _born(pid: int) -> str | None:
    """When a process started, in ticks since boot; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]


def _content(save: Save) -> dict[str, Any]:
    """What a save is, whenever and by whatever it was made."""
    return {
        "vm": save.vm,
        "vcpu": save.vcpu,
        "label": save.label,
        "first_event": save.first_event,
        "last_event": save.last_event,
        "reads": {f"{id:x}": number for id, number in save.reads.items()},
        "state": {f"{id:x}": [len(value), value.rstrip(b"\0").hex()] for id, value in save.state.items()},
        "earlier": {f"{id:x}": [len(value), value.rstrip(b"\0").hex()] for id, value in save.earlier.items()},
        "controllers": {
            f"{group:x}/{number:x}": [save.controllers.events[group, number], value.hex()]
            for (group, number), value in save.controllers.values.items()
        },
    }


def _parsed(data: bytes) -> Save:
    """The save in a file. Raises ValueError, LookupError, TypeError or AttributeError."""
    save = json.loads(data)
    if save["format"] != FORMAT:
        raise ValueError("another format")
    label, when, run = save["label"], float(save["when"]), str(save["run"])
    if not math.isfinite(when) or not run.isprintable() or not 0 < len(run) <= MOST_RUN_CHARS:
        raise ValueError("not a time or a run")
    return Save(
        _number(save["vm"]),
        _number(save["vcpu"]),
        dict(map(_value, save["state"].items())),
        {_id(id): _number(number) for id, number in save["reads"].items()},
        dict(map(_value, save["earlier"].items())),
        time.monotonic() - max(0.0, time.time() - when),
        label=None if label is None else _number(label),
        from_run=run,
        first_event=_number(save["first_event"]),
        last_event=_number(save["last_event"]),
        controllers=_controllers(save.get("controllers", {})),
    )


def _controllers(data: Any) -> Reads:
    """What was read of interrupt controllers; files of older releases have nothing of it."""
    reads = Reads()
    for name, (event, text) in data.items():
        group, number = (_number(int(part, 16)) for part in name.split("/"))
        value = bytes.fromhex(text)
        if group not in gicnames.REGISTERS or not 0 < len(value) <= LONG_BYTES:
            raise ValueError("not a register of an interrupt controller")
        reads.read((group, number), value, _number(event))
    return reads


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("not a number")
    return value


def _id(text: str) -> int:
    id = int(text, 16)
    if id not in PSEUDO_REGISTERS and not 0 <= id < 1 << 64:
        raise ValueError("not a register")
    return id


def _value(item: tuple[str, Any]) -> tuple[int, bytes]:
    size_bytes, text = item[1]
    value = bytes.fromhex(text)
    if not len(value) <= _number(size_bytes) <= MOST_VALUE_BYTES:
        raise ValueError("not a value")
    return _id(item[0]), value.ljust(size_bytes, b"\0")
