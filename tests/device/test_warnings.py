# SPDX-License-Identifier: MIT
"""Events for damage that a real kernel would have done to itself, which no errno reports."""

from __future__ import annotations

import pytest

import kvmabi
from kvmabi.events import Kind

SME2 = 1 << 24
SME2_FIELD = 15 << 24


@pytest.mark.parametrize(("kernel", "expected"), [("sme-v9", 1), ("sme-v12", 0)])
def test_an_overflow_is_one_warning(kernel: str, expected: int) -> None:
    """Each ioctl after which a kernel would write ZT0 out of bounds makes one warning event, not more."""
    with kvmabi.open(host="sme-demo", kernel=kernel) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve", "sme"})
        pfr1 = vcpu.read("id_aa64pfr1_el1")
        vcpu["id_aa64pfr1_el1"] = pfr1 & ~SME2_FIELD | SME2
        vcpu.finalize()
        vcpu["id_aa64pfr1_el1"] = pfr1
        for times in range(3):
            assert [event.kind for event in kvm.log.events].count(Kind.WARNING) == times * expected
            vcpu["svcr"] = 2
            vcpu["svcr"] = 2
            vcpu["svcr"] = 0
