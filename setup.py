# SPDX-License-Identifier: MIT
"""The steps of the build that pyproject.toml cannot say: the uapi modules from include/, the interposer from C."""

import importlib.util
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
INCLUDE = ROOT / "include"
PRELOAD = ROOT / "kvmabi" / "interpose" / "preload.c"
CFLAGS = ["-std=c11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-pthread"]


class BuildGenerated(Command):
    """Generates kvmabi/_uapi_*.py and compiles kvmabi/interpose/preload.so."""

    description = __doc__
    user_options: list[tuple[str, str, str]] = []  # noqa: RUF012  # setuptools wants a plain list
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        package = ROOT / "kvmabi" if self.editable_mode else Path(self.build_lib or "") / "kvmabi"
        (package / "interpose").mkdir(parents=True, exist_ok=True)
        _build_uapi().write(INCLUDE, package)
        if PRELOAD.exists():
            _compile(PRELOAD, package / "interpose" / "preload.so")
        if not self.editable_mode:
            shutil.copytree(INCLUDE, package / "include", dirs_exist_ok=True)

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sorted(INCLUDE.rglob("*.h"))]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def _build_uapi():
    """The generator, loaded by path: the package cannot be imported before its modules are generated."""
    spec = importlib.util.spec_from_file_location("build_uapi", ROOT / "kvmabi" / "build_uapi.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compile(source: Path, target: Path) -> None:
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    subprocess.run([*compiler, *CFLAGS, f"-I{INCLUDE}", str(source), "-o", str(target), "-ldl"], check=True)


class Build(build):
    sub_commands = [*build.sub_commands, ("build_generated", None)]  # noqa: RUF012  # setuptools wants a plain list


class BinaryDistribution(Distribution):
    """A wheel of one platform: it holds the interposer."""

    def has_ext_modules(self) -> bool:
        return PRELOAD.exists()


setup(cmdclass={"build": Build, "build_generated": BuildGenerated}, distclass=BinaryDistribution)
