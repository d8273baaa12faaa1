# SPDX-License-Identifier: MIT
"""The steps of the build that pyproject.toml cannot express: the uapi modules from include/, the interposer from C."""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
INCLUDE = ROOT / "include"
SHIPPED = (INCLUDE, ROOT / "vmm_examples")  # a checkout has them at its top, a wheel inside the package
SOURCES = (".h", ".c", ".py")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
PRELOAD = ROOT / "kvmabi" / "interpose" / "preload.c"
ARM64_COMPILER = "aarch64-linux-gnu-gcc"


class BuildGenerated(Command):
    """Generates kvmabi/_uapi_*.py, compiles kvmabi/interpose/preload*.so (honours CC, CFLAGS, LDFLAGS)."""

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
        _load("build_uapi", ROOT / "kvmabi" / "build_uapi.py").write(INCLUDE, package)
        if PRELOAD.exists():
            _compile(package / "interpose")
        if not self.editable_mode:
            for folder in SHIPPED:
                shutil.copytree(folder, package / folder.name, dirs_exist_ok=True, ignore=LEFT_OUT)

    def get_source_files(self) -> list[str]:
        files = (path for folder in SHIPPED for path in sorted(folder.rglob("*")) if path.suffix in SOURCES)
        return [str(path.relative_to(ROOT)) for path in files]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def _load(name: str, path: Path):
    """A module, loaded by its path: the package cannot be imported before its modules are generated."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compile(folder: Path) -> None:
    """Compiles the interposer for this machine, and for arm64 programs on it where there is a cross compiler."""
    building = _load("building", PRELOAD.with_name("building.py"))
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    flags, libraries = (shlex.split(os.environ.get(name, "")) for name in ("CFLAGS", "LDFLAGS"))
    subprocess.run(building.command(compiler, folder / "preload.so", flags, libraries), check=True)
    arm64 = folder / "preload-arm64.so"
    arm64.unlink(missing_ok=True)
    if platform.machine() != "aarch64" and shutil.which(ARM64_COMPILER):
        done = subprocess.run(building.command([ARM64_COMPILER], arm64), check=False)
        if done.returncode != 0:
            print(f"{ARM64_COMPILER} cannot compile the interposer: kvmabi run tries again for an arm64 program")


class Build(build):
    sub_commands = [*build.sub_commands, ("build_generated", None)]  # noqa: RUF012  # setuptools wants a plain list


class BinaryDistribution(Distribution):
    """A distribution for one platform: it holds the interposer."""

    def has_ext_modules(self) -> bool:
        return PRELOAD.exists()


class PlatformWheel(bdist_wheel):
    """A wheel for any Python 3 on one platform: the interposer is a library, but not an extension of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build": Build, "build_generated": BuildGenerated, "bdist_wheel": PlatformWheel},
    distclass=BinaryDistribution,
)
