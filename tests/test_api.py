# SPDX-License-Identifier: MIT
"""What ``import kvmabi`` gives: every name that a user holds, imported at its first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kvmabi

LATE = ("kvmabi.kvm", "kvmabi.model", "kvmabi.uapi", "kvmabi.profiles", "importlib.metadata")


@pytest.mark.parametrize("name", kvmabi.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    """A class or function bears the name under which it is public; ``open`` is open_kvm."""
    value = getattr(kvmabi, name)
    assert getattr(value, "__name__", "__version__") in (name, f"{name}_kvm", "__version__")


def test_dir_shows_the_api() -> None:
    """Also what was not imported yet, and nothing else."""
    assert dir(kvmabi) == sorted(kvmabi.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match="has no attribute 'Kvn'"):
        _ = kvmabi.Kvn


def test_importing_the_package_is_cheap() -> None:
    """Neither the package nor the version loads the model."""
    program = f"import sys, kvmabi; kvmabi.__version__; print([name for name in {LATE} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_profiles_name_themselves() -> None:
    """A repr of one line: the name, the vector lengths in bits, the kernel."""
    host, kernel = kvmabi.load_host("sme-demo"), kvmabi.load_kernel("sme-v12")
    assert repr(host) == f"<Host sme-demo: SVE 128/256 bits, SME 256/512/1024 bits, kernel {host.kernel}>"
    assert repr(kvmabi.load_host("cortex-a57")).startswith("<Host cortex-a57: no SVE, no SME, kernel linux-")
    assert repr(kernel) == f"<Kernel sme-v12: {kernel.title}>"
