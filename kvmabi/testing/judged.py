# SPDX-License-Identifier: MIT
"""A machine that is judged at the end of a ``with`` block: for tests with ``@given``, and without pytest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvmabi.kvm import Kvm
from kvmabi.testing.case import Case


@contextmanager
def opened(**arguments: Any) -> Iterator[Kvm]:
    """An open ``/dev/kvm``; raises AssertionError, with the report, if guest state was lost in the block.

    The arguments are those of ``@pytest.mark.kvmabi``. Raises UsageError for wrong ones.

    >>> with opened(host="no-sve-no-sme", ignore="x1") as kvm:
    ...     vcpu = kvm.create_vm().create_vcpu(0)
    ...     vcpu.init()
    ...     vcpu["x1"] = 7
    """
    case = Case([arguments])
    with case.open() as kvm:
        yield kvm
        if why := case.judge():
            raise AssertionError("\n\n".join([why, *case.reports]))
