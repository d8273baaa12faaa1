# SPDX-License-Identifier: MIT
"""A model to fuzz, its world, and one that is wrong on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvmabi.capture import capture
from kvmabi.capture.host import Captured
from kvmabi.fuzz import World
from kvmabi.steps.backends.model import ModelBackend

HOST = "sme-demo"


@pytest.fixture(scope="package")
def captured() -> Captured:
    with ModelBackend(HOST) as backend:
        return capture(backend, "demo", "the model")


@pytest.fixture
def model() -> Iterator[ModelBackend]:
    with ModelBackend(HOST) as backend:
        yield backend


@pytest.fixture
def world(model: ModelBackend, captured: Captured) -> World:
    return World(model.describe(), model.kernel, captured)
