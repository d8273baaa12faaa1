# SPDX-License-Identifier: MIT
"""kvmabi away from its checkout: the source archive is whole, and a wheel built from it has all that users need."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from ctools import CC, CROSS_CC, ROOT

import kvmabi

pytestmark = pytest.mark.slow
NOT_SOURCE = (".git", ".venv", ".ci", "build", "dist", "*.egg-info", "*.so", "_uapi_*.py", "__pycache__", ".*_cache")
FOLDERS = ("kvmabi", "include", "vmm_examples", "tests", "docs", "scripts", "benchmarks")
VMM = """#include <fcntl.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>
int main(void) { return ioctl(open("/dev/kvm", O_RDWR), KVM_GET_API_VERSION, 0) == KVM_API_VERSION ? 0 : 1; }
"""


def call(*words: str | Path, cwd: Path, **variables: str) -> str:
    """What a program prints; it must succeed."""
    command, env = list(map(str, words)), os.environ | variables
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path, *packages: str | Path) -> Path:
    """The folder of programs of a fresh virtual environment with these packages; skips without a package index."""
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *packages]
    done = subprocess.run(list(map(str, pip)), cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    if "No matching distribution" in done.stderr:
        pytest.skip("no package index within reach")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that can build the project."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    return environment(tmp_path_factory.mktemp("build") / "venv", *needs)


@pytest.fixture(scope="module")
def sdist(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source archive, made of a copy of the sources."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(ROOT, folder / "copy", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    hook = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    call(build / "python", "-c", hook, folder, cwd=folder / "copy")
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(build: Path, sdist: Path) -> Path:
    """A wheel, built from the source archive with a C compiler that writes its arguments into a file."""
    compiler = sdist.parent / "compiler"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(compiler))}.log\nexec {shlex.join(CC)} "$@"\n')
    compiler.chmod(0o755)
    options = ("--no-build-isolation", "--no-deps", "--disable-pip-version-check", "--quiet", "-w", sdist.parent)
    flags = {"CC": str(compiler), "CFLAGS": "-g1 -DA='B C'", "LDFLAGS": "-Wl,--build-id=none"}
    call(build / "python", "-m", "pip", "wheel", *options, sdist, cwd=sdist.parent, **flags)
    (built,) = sdist.parent.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which the wheel was installed."""
    return environment(tmp_path_factory.mktemp("installed") / "venv", wheel)


def test_the_source_archive_is_whole(sdist: Path) -> None:
    """Every file of the project's folders is in it, and nothing that the build makes."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    copy = sdist.parent / "copy"
    files = {path.relative_to(copy) for folder in FOLDERS for path in (copy / folder).rglob("*") if path.is_file()}
    assert {str(path) for path in files} - names == set()
    assert {"Makefile", "README.md", "LICENSE", "setup.py", "pyproject.toml"} <= names
    assert [name for name in names if name.endswith((".so", ".pyc")) or "_uapi_" in name] == []


def test_the_wheel_is_for_any_python_of_one_platform(wheel: Path) -> None:
    """It holds the interposer, headers and examples; the interposer is not an extension of Python."""
    assert wheel.name.startswith(f"kvmabi-{kvmabi.__version__}-py3-none-linux_")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "kvmabi/interpose/preload.so",
        "kvmabi/include/linux/kvm.h",
        "kvmabi/vmm_examples/save_restore.c",
        "kvmabi/vmm_examples/vmm.h",
        "kvmabi/_uapi_macros.py",
        "kvmabi/profiles/features.toml",
        "kvmabi/snapshot/checks/rules.toml",
        "kvmabi/snapshot/comparing/messages.toml",
        "kvmabi/snapshot/tolerances.toml",
        "kvmabi/py.typed",
        "kvmabi/interpose/exec.c",
    } <= names
    has_compiler = platform.machine() != "aarch64" and shutil.which(CROSS_CC[0]) is not None
    assert ("kvmabi/interpose/preload-arm64.so" in names) == has_compiler


def test_the_build_honours_the_compilers_variables(wheel: Path) -> None:
    """CC, CFLAGS and LDFLAGS are used, each split as a shell would."""
    arguments = (wheel.parent / "compiler.log").read_text("utf-8")
    assert " -g1 -DA=B C " in arguments
    assert " -Wl,--build-id=none -ldl" in arguments


def test_the_demo_runs_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    """The three examples are compiled, run and judged."""
    out = call(installed / "kvmabi", "demo", cwd=tmp_path)
    assert out.count("== exit status 99") == 2
    assert "nothing was lost" in out


def test_include_compiles_a_vmm(installed: Path, tmp_path: Path) -> None:
    """cc $(kvmabi include) finds the headers, and the program runs under kvmabi run."""
    (tmp_path / "vmm.c").write_text(VMM)
    flags = call(installed / "kvmabi", "include", cwd=tmp_path).split()
    call(*CC, *flags, "vmm.c", "-o", "vmm", cwd=tmp_path)
    call(installed / "kvmabi", "run", "--", "./vmm", cwd=tmp_path)


def test_the_api_is_there(installed: Path, tmp_path: Path) -> None:
    """Every public name can be imported, and the version is the wheel's."""
    program = (
        "import importlib.metadata, kvmabi\n"
        "assert kvmabi.__version__ == importlib.metadata.version('kvmabi')\n"
        "with kvmabi.open() as kvm: kvm.create_vm().create_vcpu(0).init()\n"
        "print(*(name for name in kvmabi.__all__ if getattr(kvmabi, name) is None))\n"
    )
    assert call(installed / "python", "-c", program, cwd=tmp_path) == "\n"
    assert call(installed / "kvmabi", "--version", cwd=tmp_path) == f"kvmabi {kvmabi.__version__}\n"
