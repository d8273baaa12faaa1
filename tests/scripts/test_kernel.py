# SPDX-License-Identifier: MIT
"""Finding and unpacking a suite's kernel, out of packages made here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from fetch_kernel import apt, kernel

from kvmabi.errors import UsageError

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="there is no dpkg-deb")


def package(folder: Path, name: str, file: str) -> Path:
    """A package with one file in it."""
    root = folder / f"{name}.root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: arm64\nMaintainer: nobody <n@invalid>\nDescription: test\n"
    )
    (root / file).parent.mkdir(parents=True)
    (root / file).write_bytes(b"IMAGE")
    target = folder / f"{name}_1_arm64.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", str(root), str(target)], check=True, capture_output=True
    )
    return target


def suite(packages: dict[str, Path], depends: str) -> SimpleNamespace:
    """A suite that has these packages."""
    shown = {name: {"Version": "1"} for name in packages} | {
        "linux-image-arm64": {"Version": "7.2", "Depends": depends}
    }
    return SimpleNamespace(name="here", show=lambda name: shown.get(name, {}), download=packages.__getitem__)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("linux-image-6.1.0-1-arm64", "boot/vmlinuz-6.1.0-1-arm64"),
        ("linux-binary-7.2-arm64", "usr/lib/modules/7.2-arm64/vmlinuz"),
    ],
)
def test_the_image_is_unpacked(tmp_path: Path, name: str, file: str) -> None:
    """The image comes out of linux-image before 7.0 and out of linux-binary since."""
    version = name.split("-", 2)[2]
    packages = {name: package(tmp_path, name, file)}
    image = kernel.newest(suite(packages, f"linux-base, linux-image-{version} (= 1)"), tmp_path)
    assert image.path == tmp_path / f"vmlinuz-{version}"
    assert image.path.read_bytes() == b"IMAGE"
    assert image.version == "7.2"
    assert not list(tmp_path.glob("*.partial"))


def test_a_package_without_image(tmp_path: Path) -> None:
    """A package that holds no vmlinuz, and a suite without kernel, are UsageErrors."""
    name = "linux-image-6.1-arm64"
    packages = {name: package(tmp_path, name, "boot/config")}
    with pytest.raises(UsageError, match="no vmlinuz"):
        kernel.newest(suite(packages, name), tmp_path)
    with pytest.raises(UsageError, match="here: the suite has no linux-image-arm64"):
        kernel.newest(suite({}, "nothing"), tmp_path)


def test_a_failing_command_is_one_line(tmp_path: Path) -> None:
    """An error of apt is reported as a UsageError of one line."""
    with pytest.raises(UsageError, match=r"^sh: E: no such suite$"):
        apt.run(["sh", "-c", "echo noise >&2; echo 'E: no such suite' >&2; exit 100"])
    with pytest.raises(UsageError, match="no-such-program"):
        apt.run(["no-such-program"])
    assert apt.run(["pwd"], tmp_path).strip() == str(tmp_path.resolve())
