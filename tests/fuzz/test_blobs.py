# SPDX-License-Identifier: MIT
"""Damaged blobs through all that is done with one, bounded and seeded; hunt.py does more of it (blobs/README.md)."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import resource
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from cli.conftest import Kvmabi, kvmabi
from snapshot.qemu_samples import SMALL

from fuzz.blobs import chain
from fuzz.blobs.mutator import Mutator
from fuzz.blobs.samples import samples
from kvmabi.cli.command import ExitStatus
from kvmabi.errors import UsageError
from kvmabi.snapshot import opening

__all__ = ["kvmabi"]
CORPUS = sorted((Path(__file__).parent / "blobs/corpus").iterdir())
MUTATIONS = 6
MOST_KIB = 64 << 10
MOST_SECONDS = 2.0
STATUSES = {ExitStatus.SUCCESS, ExitStatus.DIFFERENT, ExitStatus.MISUSE}


@pytest.mark.slow
@pytest.mark.parametrize("name", samples())
def test_mutations(name: str) -> None:
    """A few of each sample: a clean end, in time."""
    mutator = Mutator(name, samples(), 0)
    for number in range(MUTATIONS):
        blob = mutator()
        began = time.process_time()
        chain.run(blob, piped=number % 2 == 1, thorough=number == 0)
        assert time.process_time() - began < MOST_SECONDS * max(1, len(blob) >> 20) + 2  # the first one loads profiles


def test_mutations_are_seeded() -> None:
    """A case has a name: the same sample and seed give the same bytes; another seed, others."""
    first, again, other = (Mutator(SMALL, samples(), seed) for seed in (1, 1, 2))
    blobs = [first() for _ in range(5)]
    assert blobs == [again() for _ in range(5)]
    assert blobs != [other() for _ in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    """What the coverage-guided target starts from is read, as a file and as a pipe; so is each of its halves."""
    blob = path.read_bytes()
    for data in (blob, blob[: len(blob) // 2], blob[len(blob) // 2 :]):
        for piped in (False, True):
            chain.run(data, piped=piped, thorough=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_truncated_anywhere(path: Path) -> None:
    """Fifty lengths of each."""
    blob = path.read_bytes()
    for end in range(0, len(blob), 1 + len(blob) // 50):
        chain.run(blob[:end])


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": lambda data: zstandard.compress(data, 1),
}


def ram_bomb(size_bytes: int) -> bytes:
    """A QEMU stream that is mostly records of zero pages."""
    stream = samples()[SMALL]
    footer = b"\x7e" + stream[stream.index(b"\x03ram") - 4 :][:4]
    at = stream.index(b"\x10" + footer) + 1 + len(footer)
    records = (0x22).to_bytes(8, "big") + b"\0"
    first = (0x02).to_bytes(8, "big") + b"\x0dmach-virt.ram\0"
    end = (0x10).to_bytes(8, "big") + footer
    return stream[:at] + b"\x02" + footer[1:] + first + records * (size_bytes // len(records)) + end + stream[at:]


BOMBS: dict[str, Callable[[], bytes]] = {
    "zeros": lambda: bytes(16 << 20),
    "text": lambda: b"# comment\n" * (2 << 20),
    "json": lambda: b'{"a": ' + b"[" * (48 << 20),
    "records": lambda: ram_bomb(64 << 20),
    "our format": lambda: samples()["own-v1-svcr3.blob"] + bytes(64 << 20),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "bomb"), [*((kind, "zeros") for kind in PACKERS), *(("zstd", bomb) for bomb in BOMBS if bomb != "zeros")]
)
def test_decompression_bombs(kind: str, bomb: str) -> None:
    """A small file that unpacks to a large one, which is read on: little memory and time."""
    data = PACKERS[kind](BOMBS[bomb]())
    assert len(data) < 1 << 20
    chain.run(samples()[SMALL])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            chain.run(data)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            code = 2 * (grown > MOST_KIB) + 4 * (time.process_time() - began > MOST_SECONDS)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


COMMANDS = (
    ("info", "--force"),
    ("info", "--format", "json"),
    ("validate", "--host", "sme-demo"),
    ("validate", "--force", "--format", "sarif"),
    ("validate", "--force", "--format", "html"),
    ("plan", "--force", "--format", "c"),
    ("convert", "--force", "--to", "text"),
    ("convert", "--force", "--to", "json"),
)


@pytest.mark.slow
def test_commands_on_damaged_files(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Whatever the file, a command ends with 0, 1 or 2 and no traceback."""
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    for number, name in enumerate(samples()):
        whole.write_bytes(samples()[name])
        damaged.write_bytes(Mutator(name, samples(), 3)())
        command, *words = COMMANDS[number % len(COMMANDS)]
        ends = [kvmabi("blob", command, str(damaged), *words), kvmabi("blob", "diff", str(whole), str(damaged))]
        for ended in ends:
            assert ended.status in STATUSES
            assert "Traceback" not in ended.err


def test_special_files(kvmabi: Kvmabi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices, pipes without a writer, loops, what is empty, missing or not readable: one line, exit status 2."""
    monkeypatch.setattr(opening, "WAIT_SECONDS", 0.05)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(samples()[SMALL])
    secret.chmod(0)
    files = [tmp_path / name for name in ("fifo", "loop", "empty", "folder", "missing")]
    files += [Path("/dev/zero"), Path("/dev/null"), Path("/dev/urandom"), Path("/proc/self/mem")]
    files += [] if os.access(secret, os.R_OK) else [secret]
    for file in files:
        ended = kvmabi("blob", "validate", str(file))
        assert (ended.status, ended.out, ended.err.count("\n")) == (ExitStatus.MISUSE, "", 1)


def test_a_pipe_is_read_when_it_is_written_to(tmp_path: Path) -> None:
    """A named pipe whose writer comes later, as a migration to a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    pid = os.fork()
    if pid == 0:
        time.sleep(0.1)
        pipe.write_bytes(samples()[SMALL])
        os._exit(0)
    assert opening.read(pipe).format == "qemu"
    os.waitpid(pid, 0)


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    """A snapshot's folder whose file is a link, a pipe or a device is refused, not read."""
    vcpu = tmp_path / "crosvm/vcpu"
    vcpu.mkdir(parents=True)
    target = tmp_path / "elsewhere"
    target.write_bytes(b"\xa0")
    for make in (lambda path: path.symlink_to(target), os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(vcpu / "vcpu0")
        with pytest.raises(UsageError, match="vcpu0"):
            opening.read(tmp_path / "crosvm")
        (vcpu / "vcpu0").unlink()


HOSTILE = b"""{"host": "h\\u001b[31m", "kernel": "\\ud800", "devices": [{"name": "\\u001b[1m"}], "format": "f\\u001b",
"problems": [{"rule": "malformed", "text": "t\\u001b[2J"}, {"rule": "r\\u001b", "text": ""}],
"vcpus": [{"registers": [{"id": "0x603000000013da12", "data": "0300000000000000"}]}]}"""


@pytest.mark.parametrize("words", [("info",), ("validate",), ("diff", "--host", "sme-demo")])
def test_what_a_blob_says_is_no_escape_sequence(kvmabi: Kvmabi, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Names and texts of a file are printed so that a terminal shows them."""
    file = tmp_path / "hostile.json"
    file.write_bytes(HOSTILE)
    command, *options = words
    ended = kvmabi("blob", command, str(file), *options)
    assert ended.status == ExitStatus.DIFFERENT
    assert "\x1b" not in ended.out
    assert "\\x1b" in ended.out
