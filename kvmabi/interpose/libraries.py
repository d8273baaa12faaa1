# SPDX-License-Identifier: MIT
"""The interposer as a file that the dynamic loader can preload, for this machine and for arm64 programs on it.

A shell starts an arm64 program, which starts a program of the machine: all inherit one LD_PRELOAD. Its path contains
$PLATFORM, which each loader replaces by its own machine's name (ld.so(8)), so each finds the library that it can load.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvmabi.errors import UsageError
from kvmabi.interpose import building

PRELOAD = Path(__file__).with_name("preload.so")
ARM64 = Path(__file__).with_name("preload-arm64.so")
"""Built at installation where there is a cross compiler."""
COMPILER = "aarch64-linux-gnu-gcc"
PACKAGES = "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"
ARM64_PLATFORM = "aarch64"
OTHER_PLATFORMS = {"x86_64": ("haswell", "xeon_phi")}
"""What else a machine's loader replaces $PLATFORM by: glibc names some x86-64 processors."""
UNPRELOADABLE = re.compile(r"[\s:$]")
"""Characters that a path in LD_PRELOAD cannot contain: separators, and the start of a token."""


def preloadable(library: Path, folder: Path) -> str:
    """A path to the file or folder that LD_PRELOAD can hold, through a symbolic link in ``folder`` if necessary."""
    if not UNPRELOADABLE.search(str(library)):
        return str(library)
    link = folder / library.name
    if UNPRELOADABLE.search(str(link)):
        raise UsageError(f"neither {library} nor {link} can be preloaded: their paths contain white space, ':' or '$'")
    link.symlink_to(library)
    return str(link)


def for_both(native: Path, arm64: Path, folder: Path) -> str:
    """The LD_PRELOAD with which programs of this machine load ``native`` and arm64 programs ``arm64``.

    The links that it leads through stay in the user's cache: processes that outlive kvmabi load through them. Where
    there can be no cache they are in ``folder``.
    """
    machine = os.uname().machine
    links = dict.fromkeys((machine, *OTHER_PLATFORMS.get(machine, ())), native) | {ARM64_PLATFORM: arm64}
    name = f"platforms-{_digest(f'{links}'.encode())}"
    try:
        place = _linked(links, _cache() / name)
    except OSError:
        place = _linked(links, folder / name)
    return f"{preloadable(place, folder)}/$PLATFORM/{PRELOAD.name}"


def arm64_library(folder: Path) -> Path:
    """The interposer for arm64 programs: the package's, or built on first use.

    It is built in the user's cache, or in ``folder`` where there can be none. Errors: UsageError.
    """
    if ARM64.is_file():
        return ARM64
    if shutil.which(COMPILER) is None:
        raise UsageError(f"the interposer for arm64 programs is not built and needs {COMPILER}: install {PACKAGES}")
    headers = sorted(building.HERE.glob("*.h"))
    content = b"".join(file.read_bytes() for file in (*building.sources(), *headers, Path(building.__file__)))
    name = f"preload-{_digest(content)}.so"
    try:
        cached = _cache() / name
        return cached if cached.is_file() else _built(cached)
    except OSError:
        return _built(folder / name)


def _built(target: Path) -> Path:
    """Compile under another name, then rename: another process sees the whole library or none."""
    import subprocess  # here: most runs start without it

    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as folder:
        built = Path(folder, target.name)
        done = subprocess.run(building.command([COMPILER], built), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = next((line for line in done.stderr.splitlines() if "error" in line), "it printed no error")
            raise UsageError(f"{COMPILER} cannot compile the interposer (install {PACKAGES}): {reason}")
        built.replace(target)
    return target


def _linked(links: dict[str, Path], place: Path) -> Path:
    """A folder with a link to a library for each platform, which appears at once. Errors: OSError."""
    if not _leads(links, place):
        with _alone(place.parent):
            if not _leads(links, place):  # another process may have made it meanwhile, and started its program
                _link(links, place)
    return place


def _leads(links: dict[str, Path], place: Path) -> bool:
    """Whether the links are there and lead to files."""
    return all((place / name / PRELOAD.name).exists() for name in links)


def _link(links: dict[str, Path], place: Path) -> None:
    made = Path(tempfile.mkdtemp(prefix=".links-", dir=place.parent))
    for name, library in links.items():
        (made / name).mkdir()
        (made / name / PRELOAD.name).symlink_to(library.absolute())
    if place.exists():
        shutil.rmtree(place)
    made.rename(place)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _cache() -> Path:
    """The user's cache folder for kvmabi. Errors: OSError."""
    parent = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(parent, "kvmabi")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _digest(content: bytes) -> str:
    import hashlib  # here: most runs start without it

    return hashlib.sha256(content).hexdigest()[:16]
