# SPDX-License-Identifier: MIT
"""Opening backends: the right one, and one clear line for every misuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmabi.errors import UsageError
from kvmabi.interpose.protocol import SOCKET_VARIABLE
from kvmabi.steps.backends import open_backend
from kvmabi.steps.backends.base import kernel_for
from kvmabi.steps.backends.device import INTERPOSED, DeviceBackend
from kvmabi.steps.vm.compiler import VARIABLE


@pytest.mark.parametrize(
    ("release", "profile"),
    [("7.2.13+deb14-arm64", "linux-7.2"), ("7.3-rc7", "linux-7.3"), ("7.99.1", "linux-7.3"), ("8.0", "linux-7.3")],
)
def test_the_profile_of_a_release(release: str, profile: str) -> None:
    """A release goes by the newest mainline profile that is not newer than itself."""
    assert kernel_for(release, None).name == profile


def test_a_named_profile_wins() -> None:
    """--kernel decides, whatever the release."""
    assert kernel_for("7.2.13-smev12", "sme-v12").name == "sme-v12"


@pytest.mark.parametrize("release", ["2.6.32", "unknown"])
def test_no_profile_for_a_release(release: str) -> None:
    """A release that is too old or malformed is a UsageError that names the option to give."""
    with pytest.raises(UsageError, match="--kernel"):
        kernel_for(release, None)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cloud", {}, "no backend 'cloud'"),
        ("vm", {}, "--kernel-image"),
        ("vm", {"kernel_image": "/nonexistent"}, "no such kernel image"),
        ("vm", {"kernel_image": __file__}, "not an arm64 kernel"),
        ("vm", {"kernel_image": "x", "device": "/dev/kvm"}, "--device is for the backend device"),
        ("model", {"kernel_image": "x"}, "--kernel-image is for the backend vm"),
        ("model", {"host": "nix"}, "no host 'nix'"),
        ("device", {"host": "sme-demo"}, "--host is for the backend model"),
    ],
)
def test_misuse(name: str, options: dict[str, str], words: str) -> None:
    """Options of another backend, and missing files and programs, are a UsageError."""
    with pytest.raises(UsageError, match=words):
        open_backend(name, **options)


def test_what_is_cheap_to_see_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without QEMU nothing is compiled; with QEMU, a missing compiler is the next error."""
    image = tmp_path / "Image"
    image.write_bytes(bytes(56) + b"ARM\x64" + bytes(8))
    monkeypatch.setenv(VARIABLE, "no-such-compiler")
    with pytest.raises(UsageError, match="no no-such-qemu"):
        open_backend("vm", kernel_image=str(image), qemu="no-such-qemu")
    monkeypatch.setattr("shutil.which", lambda tool: None if "gcc" in tool or "compiler" in tool else f"/bin/{tool}")
    with pytest.raises(UsageError, match="no no-such-compiler: install a cross compiler"):
        open_backend("vm", kernel_image=str(image), qemu="true")


def test_the_device_of_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is not arm64 the device is refused in one line, and not touched."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv(INTERPOSED, raising=False)
    with pytest.raises(UsageError, match="this machine is x86_64"):
        DeviceBackend()


def test_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be opened, or is not a KVM device, is a UsageError with its name."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UsageError, match="/nonexistent: No such file"):
        DeviceBackend("/nonexistent", "linux-7.3")
    with pytest.raises(UsageError, match="/dev/null is not a KVM device"):
        DeviceBackend("/dev/null", "linux-7.3")


def test_the_variable_is_the_interposers() -> None:
    """An interposed process is recognised by the variable that the interposer sets."""
    assert INTERPOSED == SOCKET_VARIABLE
