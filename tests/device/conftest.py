# SPDX-License-Identifier: MIT
"""A demo host's /dev/kvm, and a finalised vCPU of it with SM and ZA on and every vector register full of numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pages import Edge
from vmms import guest, opened

from kvmabi import Kvm
from kvmabi.kvm import Vcpu


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with opened() as opened_kvm:
        yield opened_kvm


@pytest.fixture
def vcpu(kvm: Kvm) -> Vcpu:
    return guest(kvm.create_vm(), 3)


@pytest.fixture
def edge() -> Edge:
    return Edge()
