# SPDX-License-Identifier: MIT
"""Which events are shown: by what they are and whom they concern.

A filter is a list of words: a class of ioctls, an ioctl's name with or without ``KVM_`` in any case, or a pattern of
names (``*dirty*``). A word after ``!`` leaves out what it names. Words that leave out, alone, start from everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from kvmabi import uapi
from kvmabi.errors import UsageError
from kvmabi.events import Event, Kind

NOT = "!"
KVM = "KVM_"
CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "one_reg": ("KVM_GET_ONE_REG", "KVM_SET_ONE_REG"),
    "get": ("KVM_GET_ONE_REG",),
    "set": ("KVM_SET_ONE_REG",),
    "list": ("KVM_GET_REG_LIST",),
    "run": ("KVM_RUN",),
    "life": ("KVM_CREATE_*", "KVM_ARM_VCPU_*", "KVM_ARM_PREFERRED_TARGET"),
    "cap": ("KVM_CHECK_EXTENSION", "KVM_ENABLE_CAP"),
    "attr": ("KVM_*_DEVICE_ATTR",),
    "memory": ("KVM_SET_USER_MEMORY_REGION*", "KVM_*DIRTY*", "KVM_*MEMORY*", "KVM_CREATE_GUEST_MEMFD"),
    "irq": ("KVM_IRQ*", "KVM_IOEVENTFD", "KVM_SIGNAL_MSI", "KVM_SET_GSI_ROUTING"),
    "state": ("KVM_*_MP_STATE", "KVM_*_VCPU_EVENTS", "KVM_SET_SIGNAL_MASK", "KVM_SET_GUEST_DEBUG"),
}
"""Classes of ioctls, as patterns of names."""
ANSWERS: Final[dict[str, Callable[[Event], bool]]] = {
    "failed": lambda event: bool(event.errno),
    "unmodelled": lambda event: not event.modelled,
}
"""Classes of events by their answers."""
VCPU = re.compile(r"(?:(\d{1,9})/)?(\d{1,9})")
Test = Callable[[Event], bool]


def by_what(words: Iterable[str]) -> Test:
    """The test of a list of words. Raises UsageError for a word that names nothing."""
    wanted: list[Test] = []
    unwanted: list[Test] = []
    for word in words:
        (unwanted if word.startswith(NOT) else wanted).append(_test(word.removeprefix(NOT)))
    return lambda event: (
        (not wanted or any(test(event) for test in wanted)) and not any(test(event) for test in unwanted)
    )


def by_vcpu(text: str) -> Test:
    """The test for a vCPU: ``0`` of any VM, ``1/0`` of VM 1. Raises UsageError."""
    match = VCPU.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a vCPU: take a number (0), or a VM's and a vCPU's (1/0)")
    vm, vcpu = (None if number is None else int(number) for number in match.groups())
    return lambda event: event.vcpu == vcpu and vm in (None, event.vm)


def both(tests: Sequence[Test]) -> Test:
    """The test that all of them pass."""
    return lambda event: all(test(event) for test in tests)


def _test(word: str) -> Test:
    if word in ANSWERS:
        return ANSWERS[word]
    patterns = CLASSES.get(word) or (_name(word),)
    if not any(fnmatchcase(name, pattern) for pattern in patterns for name in uapi.IOCTL_ARGUMENTS):
        choices = ", ".join((*CLASSES, *ANSWERS))
        raise UsageError(f"-e {word}: no ioctl has this name; take an ioctl's, a pattern, or one of {choices}")
    return lambda event: event.kind is Kind.IOCTL and any(fnmatchcase(event.what, pattern) for pattern in patterns)


def _name(word: str) -> str:
    name = word.upper()
    return name if name.startswith((KVM, "*")) else KVM + name
