# SPDX-License-Identifier: MIT
"""Backends for the tests: the model on its own, and a model that can be made to lie."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator

import pytest

from kvmabi.errors import UsageError
from kvmabi.steps.backends import Backend
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.vm.compiler import compiler
from kvmabi.steps.vm.qemu import QEMU

HOST = "sme-demo"
IMAGE_VARIABLE = "KVMABI_KERNEL_IMAGE"
Answer = Callable[[str, str], str]


class Liar(Backend):
    """A backend whose answers go through ``change(step, answer)``."""

    name = "liar"

    def __init__(self, honest: Backend, change: Answer) -> None:
        super().__init__()
        self.honest, self.change = honest, change
        self.kernel, self.release = honest.kernel, honest.release

    def answers(self, steps: Iterable[str]) -> list[str]:
        asked = list(steps)
        return [self.change(step, answer) for step, answer in zip(asked, self.honest.answers(asked), strict=True)]

    def describe(self):  # type: ignore[no-untyped-def]
        return self.honest.describe()

    def close(self) -> None:
        self.honest.close()


@pytest.fixture
def model() -> Iterator[ModelBackend]:
    """The model on the demo's host, which has SVE, SME, SME2 and FA64."""
    with ModelBackend(HOST) as backend:
        yield backend


@pytest.fixture
def liar(model: ModelBackend) -> Callable[[Answer], Liar]:
    """liar(change): the model with answers changed by ``change(step, answer)``."""
    return lambda change: Liar(model, change)


@pytest.fixture(scope="session")
def kernel_image() -> str:
    """An arm64 kernel to boot; the test is skipped where there is none, or nothing to boot it with."""
    image = os.environ.get(IMAGE_VARIABLE)
    if not image:
        pytest.skip(f"{IMAGE_VARIABLE} names no arm64 kernel: make oracle fetches one")
    if not shutil.which(QEMU):
        pytest.skip(f"there is no {QEMU}")
    try:
        compiler()
    except UsageError as error:
        pytest.skip(str(error))
    return image
