# SPDX-License-Identifier: MIT
"""The kind of each program is recognised before it runs, by how its system calls can be reached."""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from interpose.conftest import Build
from kvmabi.device import SystemFile
from kvmabi.errors import UsageError
from kvmabi.interpose import launch
from kvmabi.interpose.launch import run
from kvmabi.interpose.program import CannotRun, Kind, Way, check, find

MACHINE_OFFSET = 18
CLASS_OFFSET = 4


@pytest.fixture
def hello(build: Build) -> Path:
    return build("hello")


def changed(program: Path, target: Path, offset: int, value: int) -> str:
    """A copy of a program with one byte of its ELF header changed."""
    data = bytearray(program.read_bytes())
    data[offset] = value
    target.write_bytes(data)
    return str(target)


def script(target: Path, first_line: str) -> str:
    target.write_text(f"{first_line}\necho hello\n")
    target.chmod(0o755)
    return str(target)


def own_machine() -> int:
    return int.from_bytes(Path("/proc/self/exe").read_bytes()[MACHINE_OFFSET : MACHINE_OFFSET + 2], sys.byteorder)


def test_dynamic(hello: Path) -> None:
    """A dynamically linked program is preloadable, and so are the shell, Python and the loader itself."""
    loaders = [*Path("/lib64").glob("ld-linux*.so.*"), *Path("/lib").glob("ld-linux*.so.*")]
    for program in (str(hello), "/bin/sh", os.path.realpath("/proc/self/exe"), *map(str, loaders)):
        assert check(program) == Way(Kind.PRELOADABLE, program, own_machine())


@pytest.mark.parametrize("flag", ["-static", "-static-pie"])
def test_static(build: Build, flag: str, tmp_path: Path) -> None:
    """A static program is recognised by its own name and as a script's interpreter."""
    program = str(build("exits", flag))
    for file in (program, script(tmp_path / "script", f"#! {program} -x")):
        way = check(file)
        assert way[:3] == (Kind.STATIC, program, own_machine())
        assert way.obstacle.startswith(f"{program} is linked statically")


def test_other_machine(hello: Path, tmp_path: Path) -> None:
    """A program for another machine or word size is recognised."""
    machine = hello.read_bytes()[MACHINE_OFFSET] ^ 0xFF
    way = check(changed(hello, tmp_path / "machine", MACHINE_OFFSET, machine))
    assert way[:2] == (Kind.OTHER_MACHINE, str(tmp_path / "machine"))
    assert way.machine == own_machine() ^ 0xFF
    assert f"built for another machine (ELF machine {way.machine}, not {own_machine()})" in way.obstacle
    way = check(changed(hello, tmp_path / "class", CLASS_OFFSET, 1))
    assert way[:3] == (Kind.OTHER_FORMAT, str(tmp_path / "class"), None)
    assert "another word size" in way.obstacle


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a program away")
@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_privileges(hello: Path, tmp_path: Path, mode: int) -> None:
    """A program that would run as another user is recognised: the loader preloads nothing into it."""
    target = tmp_path / "privileged"
    shutil.copy(hello, target)
    os.chown(target, 12345, 12345)
    target.chmod(mode)
    way = check(str(target))
    assert way[:3] == (Kind.PRIVILEGED, str(target), own_machine())
    assert "other privileges" in way.obstacle


def test_refused_without_a_transport(
    hello: Path, system: SystemFile, preload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of what no transport reaches fails with the obstacle in one line; a new transport is a new row."""
    other = changed(hello, tmp_path / "class", CLASS_OFFSET, 1)
    with pytest.raises(UsageError) as refused:
        run([other], system, preload=preload)
    assert str(refused.value) == check(other).obstacle
    monkeypatch.setitem(launch.TRANSPORTS, Kind.OTHER_FORMAT, launch.TRANSPORTS[Kind.PRELOADABLE])
    Path(other).chmod(0)
    with pytest.raises(CannotRun):  # exec refuses it
        run([other], system, preload=preload)


@pytest.mark.parametrize("content", [b"", b"#!", b"#!\n", b"\x7fEL", b"just text"])
def test_left_to_exec(content: bytes, tmp_path: Path) -> None:
    """A file that is not a program counts as preloadable: exec reports the error."""
    target = tmp_path / "odd"
    target.write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    for file in (target, tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        assert check(str(file)) == Way(Kind.PRELOADABLE, str(file))


@pytest.mark.slow
def test_damaged_program(hello: Path, tmp_path: Path) -> None:
    """Any ELF header, valid or not, has a kind, and an obstacle unless a library can be preloaded."""
    dice = random.Random(1)
    whole = hello.read_bytes()
    for _ in range(500):
        data = bytearray(whole[: dice.choice([4, 20, 63, 64, 200, len(whole)])])
        for place in dice.choices(range(4, 64), k=dice.randrange(12)):
            if place < len(data):
                data[place] = dice.choice([0, 1, 0x7F, 0xFF])
        (tmp_path / "damaged").write_bytes(data)
        way = check(str(tmp_path / "damaged"))
        assert bool(way.obstacle) == (way.kind not in (Kind.PRELOADABLE, Kind.EMULATED))


def test_scripts(tmp_path: Path) -> None:
    """A script has its interpreter's kind; a missing interpreter, or the script itself, is left to exec."""
    for interpreter in ("/bin/sh", "/usr/bin/env", "/nowhere/sh", f"{tmp_path}/script"):
        way = check(script(tmp_path / "script", f"#! {interpreter} -x"))
        assert (way.kind, way.file, way.obstacle) == (Kind.PRELOADABLE, interpreter, "")
        assert way.script[:3] == (interpreter, "-x", f"{tmp_path}/script")


def test_find(tmp_path: Path) -> None:
    """PATH is searched as execvp does; 127 if there is nothing, 126 if it cannot be executed."""
    (tmp_path / "data").write_text("no program")
    assert find("./x") == "./x"
    assert find("sh") in ("/bin/sh", "/usr/bin/sh")
    assert find("script", f"/nowhere:{Path(script(tmp_path / 'script', '#!/bin/sh')).parent}") == str(
        tmp_path / "script"
    )
    with pytest.raises(CannotRun, match="data: ") as refused:
        find("data", f"/nowhere:{tmp_path}")
    assert refused.value.code == 126
    with pytest.raises(CannotRun, match="absent: ") as missing:
        find("absent", str(tmp_path))
    assert missing.value.code == 127


@pytest.mark.skipif(os.geteuid() == 0, reason="root looks into every folder")
def test_folder_that_cannot_be_searched(tmp_path: Path) -> None:
    """As in execvp, a folder in PATH that cannot be searched makes a missing program 126."""
    tmp_path.chmod(0)
    try:
        with pytest.raises(CannotRun) as refused:
            find("absent", f"{tmp_path}:/nowhere")
    finally:
        tmp_path.chmod(0o700)
    assert refused.value.code == 126


def test_a_program_that_path_lacks_is_not_found() -> None:
    """The error names what was looked for, and where."""
    with pytest.raises(CannotRun, match="no-such-program: not found in PATH"):
        find("no-such-program")
