# SPDX-License-Identifier: MIT
"""The /dev/kvm of tests of verdicts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vmms import opened

from kvmabi import Kvm


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with opened() as opened_kvm:
        yield opened_kvm
