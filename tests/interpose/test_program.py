# SPDX-License-Identifier: MIT
"""Programs that the interposer cannot reach are refused before they run."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from interpose.conftest import Build
from kvmabi.errors import UsageError
from kvmabi.interpose.program import CannotRun, check, find

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


def test_dynamic(hello: Path) -> None:
    """A dynamically linked program passes, and so do the shell, Python and the loader itself."""
    for program in (str(hello), "/bin/sh", os.path.realpath("/proc/self/exe")):
        check(program)
    loaders = [*Path("/lib64").glob("ld-linux*.so.*"), *Path("/lib").glob("ld-linux*.so.*")]
    for loader in loaders:
        check(str(loader))


@pytest.mark.parametrize("flag", ["-static", "-static-pie"])
def test_static(build: Build, flag: str, tmp_path: Path) -> None:
    """A static program is refused, by its own name and as a script's interpreter."""
    program = build("exits", flag)
    with pytest.raises(UsageError, match="linked statically"):
        check(str(program))
    with pytest.raises(UsageError, match="linked statically"):
        check(script(tmp_path / "script", f"#! {program} -x"))


def test_other_machine(hello: Path, tmp_path: Path) -> None:
    """A program for another machine or word size is refused."""
    machine = hello.read_bytes()[MACHINE_OFFSET]
    with pytest.raises(UsageError, match="another machine"):
        check(changed(hello, tmp_path / "machine", MACHINE_OFFSET, machine ^ 0xFF))
    with pytest.raises(UsageError, match="word size"):
        check(changed(hello, tmp_path / "class", CLASS_OFFSET, 1))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a program away")
@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_privileges(hello: Path, tmp_path: Path, mode: int) -> None:
    """A program that would run as somebody else is refused: the loader preloads nothing into it."""
    target = tmp_path / "privileged"
    shutil.copy(hello, target)
    os.chown(target, 12345, 12345)
    target.chmod(mode)
    with pytest.raises(UsageError, match="other privileges"):
        check(str(target))


@pytest.mark.parametrize("content", [b"", b"#!", b"#!\n", b"\x7fEL", b"just text"])
def test_left_to_exec(content: bytes, tmp_path: Path) -> None:
    """What is no program at all passes: exec tells what is wrong."""
    target = tmp_path / "odd"
    target.write_bytes(content)
    check(str(target))
    os.mkfifo(tmp_path / "pipe")
    check(str(tmp_path / "pipe"))
    check(str(tmp_path))


def test_damaged_program(hello: Path, tmp_path: Path) -> None:
    """An ELF header full of lies is refused or passed on to exec, no more."""
    dice = random.Random(1)
    whole = hello.read_bytes()
    for _ in range(500):
        data = bytearray(whole[: dice.choice([4, 20, 63, 64, 200, len(whole)])])
        for place in dice.choices(range(4, 64), k=dice.randrange(12)):
            if place < len(data):
                data[place] = dice.choice([0, 1, 0x7F, 0xFF])
        (tmp_path / "damaged").write_bytes(data)
        with suppress(UsageError):
            check(str(tmp_path / "damaged"))


def test_scripts(tmp_path: Path) -> None:
    """Scripts pass, also where the interpreter is missing or the script names itself: exec tells that."""
    for first_line in ("#!/bin/sh", "#! /usr/bin/env python3", "#!/nowhere/sh", f"#!{tmp_path}/script"):
        check(script(tmp_path / "script", first_line))


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
    """As execvp does, a folder in PATH that cannot be looked into makes a missing program 126."""
    tmp_path.chmod(0)
    try:
        with pytest.raises(CannotRun) as refused:
            find("absent", f"{tmp_path}:/nowhere")
    finally:
        tmp_path.chmod(0o700)
    assert refused.value.code == 126
