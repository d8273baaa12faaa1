# SPDX-License-Identifier: MIT
"""The unit tests of rust-vmm's crate kvm-ioctls, built for arm64 with Debian's Rust.

The compiler is unpacked, not installed: its loader is called with its own libraries. It links with the system's arm64
cross compiler, so that the tests run with the system's arm64 C library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from fetch_kernel.apt import run

from fetch_clients import packages
from kvmabi.errors import UsageError

PACKAGE = "librust-kvm-ioctls-dev"
NATIVE = ("rustc", "cargo", PACKAGE, "librust-vmm-sys-util-dev")
ARM64_STANDARD_LIBRARY = "libstd-rust-dev"
TARGET = "aarch64-unknown-linux-gnu"
SECONDS = 600
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
SYSROOT = "/usr/aarch64-linux-gnu"
IS_TEST = ": test"
CRATES = "usr/share/cargo/registry"


def fetch(folder: Path, into: Path, suite: str) -> str:
    """The test program of a suite's kvm-ioctls as ``into``/tests; returns the version of its package."""
    native = packages.suite(suite, folder, "amd64")
    arm64 = packages.suite(suite, folder)
    packages.root(native, into, *NATIVE)
    root = into / "root"
    packages.unpack([arm64.download(ARM64_STANDARD_LIBRARY)], root)
    crates = sorted((root / CRATES).glob("kvm-ioctls-*"))
    if not crates:
        raise UsageError(f"{suite}: {PACKAGE} holds no crate kvm-ioctls")
    shutil.copy(_built(root.resolve(), crates[-1], into.resolve() / "build"), into / "tests")
    listing = run(["qemu-aarch64", "-L", SYSROOT, str(into / "tests"), "--list"])
    names = [line.removesuffix(IS_TEST) for line in listing.splitlines() if line.endswith(IS_TEST)]
    (into / "names").write_text("\n".join(names) + "\n", "utf-8")
    for leftover in (root, into / "build"):
        shutil.rmtree(leftover)
    return packages.version(native, PACKAGE)


def _built(root: Path, crate: Path, folder: Path) -> Path:
    """Build a crate's tests in a folder; returns the program."""
    source = folder / "crate"
    shutil.copytree(crate, source)
    (source / "Cargo.lock").unlink(missing_ok=True)
    tools = folder / "bin"
    tools.mkdir()
    for name in ("rustc", "cargo"):
        loader = f"{root / LOADER} --library-path {root / LIBRARIES}"
        option = f" --sysroot {root / 'usr'}" if name == "rustc" else ""
        (tools / name).write_text(f'#!/bin/sh\nexec {loader} {root}/usr/bin/{name}{option} "$@"\n', "utf-8")
        (tools / name).chmod(0o755)
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "{root / CRATES}"\n'
        f'[target.{TARGET}]\nlinker = "aarch64-linux-gnu-gcc"\n[net]\noffline = true\n',
        "utf-8",
    )
    variables = {
        "PATH": f"{tools}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "CARGO_HOME": str(home),
        "RUSTC": str(tools / "rustc"),
    }
    command = ["cargo", "test", "--lib", "--no-run", "--target", TARGET, "--target-dir", str(folder / "target")]
    done = subprocess.run(command, cwd=source, env=variables, capture_output=True, text=True, timeout=SECONDS)
    found = sorted(path for path in (folder / "target").glob("*/debug/deps/kvm_ioctls-*") if os.access(path, os.X_OK))
    if done.returncode or not found:
        raise UsageError(f"cargo test: {done.stderr.strip()[-300:]}")
    return found[0]
