# SPDX-License-Identifier: MIT
"""The executor in C: compiled for this machine it does every step as the Python one, on an interposed /dev/kvm."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from ctools import CC, INCLUDE, STRICT

from kvmabi.conformance import Backend, load, run
from kvmabi.errors import UsageError
from kvmabi.fuzz import Generator, World
from kvmabi.interpose.launch import PRELOAD
from kvmabi.profiles import load_kernel
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.backends.vm import whole
from kvmabi.steps.vm.compiler import CROSS_COMPILER, SOURCE, VARIABLE, compiler, executor

HOST, KERNEL = "sme-demo", "sme-v12"
KVMABI = [sys.executable, "-c", "import sys; from kvmabi.cli import main; sys.exit(main())"]


class Interposed(Backend):
    """The executor as a program of this machine, under kvmabi run."""

    name = "interposed"

    def __init__(self, program: Path) -> None:
        super().__init__()
        self.kernel, self.release = load_kernel(KERNEL), KERNEL
        command = [*KVMABI, "run", "--host", HOST, "--kernel", KERNEL, "--", str(program)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.lists: list[str] = []
        assert self.process.stdout
        assert self.process.stdout.readline().startswith("kvmabi-executor 1 ")

    def answers(self, steps: Iterable[str]) -> list[str]:
        assert self.process.stdin
        assert self.process.stdout
        answers = []
        for step in steps:
            self.process.stdin.write(step + "\n")
            self.process.stdin.flush()
            answers.append(whole(step, self.process.stdout.readline().rstrip("\n"), self.lists))
        return answers

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def interposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interposed]:
    if not PRELOAD.is_file():
        pytest.skip("the interposer was not built")
    program = tmp_path_factory.mktemp("executor") / "executor"
    command = [*CC, "-std=c11", "-O2", *STRICT, "-Wno-pedantic", f"-I{INCLUDE}", str(SOURCE), "-o", str(program)]
    subprocess.run(command, check=True)
    with Interposed(program) as backend:
        yield backend


@pytest.mark.slow
def test_it_passes_the_suite(interposed: Interposed) -> None:
    """What the model answers through the executor and the interposer agrees with every case that the model passes."""
    with ModelBackend(HOST, KERNEL) as model:
        expected = {outcome.case.name: outcome.differences for outcome in run(model, load())}
    got = {outcome.case.name: outcome.differences for outcome in run(interposed, load())}
    assert got == expected


@pytest.mark.slow
def test_it_answers_as_the_python_one(interposed: Interposed) -> None:
    """Random sequences get the same answers from the executor and from the steps in Python."""
    from kvmabi.capture import capture

    with ModelBackend(HOST, KERNEL) as model:
        generator = Generator(5, World(model.describe(), model.kernel, capture(model, "demo", "the model")))
        for number in range(25):
            steps = generator.sequence(number)
            for step, one, other in zip(steps, model.answers(steps), interposed.answers(steps), strict=True):
                assert (step, other) == (step, one)


def test_it_is_compiled_for_arm64() -> None:
    """The cross compiler makes a static arm64 program of it, with every warning an error."""
    try:
        command = compiler()
    except UsageError as error:
        pytest.skip(str(error))
    program = executor()
    assert program.startswith(b"\x7fELF\x02\x01"), command
    assert program[18:20] == b"\xb7\x00"  # EM_AARCH64
    assert b"/lib/ld-linux-aarch64" not in program


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler the error says what to install; for a named compiler that is absent it has the name."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UsageError, match="gcc-aarch64-linux-gnu"):
        compiler()
    monkeypatch.setenv(VARIABLE, "my-cc --sysroot=/x")
    with pytest.raises(UsageError, match="no my-cc"):
        compiler()
    assert CROSS_COMPILER.startswith("aarch64")
