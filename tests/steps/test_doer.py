# SPDX-License-Identifier: MIT
"""Steps as ioctls of this process: each kind of step, on the model, answers in the form that traces have."""

from __future__ import annotations

import pytest

from kvmabi import regid, uapi
from kvmabi.steps.backends.model import ModelBackend

X0, Z0, ZA0, SVCR = (f"{regid.parse(name):x}" for name in ("x0", "z0", "za.h[0]", "svcr"))
BEGIN = ["N 1", "I 0 5 210", "F 0 4"]


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("I 0 5 210", "OK"),
        ("i 0 5 210 0 0 0 0 0 1", "ENOENT"),
        ("F 0 4", "EPERM"),
        (f"G 0 {X0}", "OK 00*8."),
        (f"G 0 {ZA0}", "EBUSY"),
        ("G 0 0", "EINVAL"),
        (f"S 0 {X0} 0102", "OK"),
        (f"P 0 {Z0} 3", "OK"),
        (f"B 0 {X0}", "EFAULT"),
        (f"b 0 {X0}", "EFAULT"),
        (f"g 0 {X0} 7", "EFAULT"),
        (f"g 0 {X0} 8", "OK"),
        (f"s 0 {X0} 7 1", "EFAULT"),
        ("L 0 0", "E2BIG "),
        ("l 0 4096 1", "EFAULT "),
        ("R 0", "EINTR"),
        ("V 0", "EEXIST"),
        ("V 512", "EINVAL"),
        ("W 100000", "EINVAL"),
        (f"X s {uapi.KVM_GET_API_VERSION:x} 0", "OK 12"),
        (f"X 0 {uapi.KVM_ARM_VCPU_INIT:x} 8", "EFAULT"),
        ("X 0 aeff 0", "EINVAL"),
        (f"A v {uapi.KVM_ARM_PREFERRED_TARGET:x}", "OK 0500*31."),
        ("M", "OK 603000000013c000="),
        ("Q", "OK"),
        (f"G 7 {X0}", "EBADF"),
    ],
)
def test_each_step(model: ModelBackend, step: str, answer: str) -> None:
    """Each step is the ioctl in its description, and returns its errno or result."""
    got = model.answers([*BEGIN, step])[-1]
    begins = answer.endswith((" ", "=")) or step == "Q"
    assert got.startswith(answer) if begins else got == answer


def test_a_partial_set_stores_what_was_readable(model: ModelBackend) -> None:
    """s ends its buffer at an unmapped page: the model sees the bytes before it, and EFAULT."""
    answers = model.answers([*BEGIN, f"S 0 {Z0} ff*256.", f"s 0 {Z0} 3 9", f"G 0 {Z0}"])
    assert answers[-2:] == ["EFAULT", "OK 09101700*253."]


def test_the_list_is_returned_whole(model: ModelBackend) -> None:
    """L returns the IDs in order, as many as it counts, and the value of S can have runs."""
    *_, listed = model.answers([*BEGIN, f"S 0 {SVCR} 0300*7.", "L 0 4096"])
    result, count, *ids = listed.split()
    assert (result, int(count)) == ("OK", len(ids))
    assert ids[0] == X0
    assert ZA0 in ids


@pytest.mark.parametrize("step", ["?", "G 0", "", "N x", "S 0 0 zz", f"s 0 {X0} 99999999 1"])
def test_nonsense_is_a_value_error(model: ModelBackend, step: str) -> None:
    """Anything that is not a step is a ValueError."""
    with pytest.raises(ValueError, match=r".*"):
        model.answers(["N 1", step])
