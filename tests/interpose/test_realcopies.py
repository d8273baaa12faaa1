# SPDX-License-Identifier: MIT
"""What a kernel copies in an ioctl, as the ABI says: the same as the emulated one copies."""

from __future__ import annotations

import pytest

from kvmabi import regid, uapi
from kvmabi.detail import Detail
from kvmabi.device import open_system
from kvmabi.events import Event, EventLog
from kvmabi.interpose.realcopies import COPIES, MOST_BYTES, Asked, Copy, copies, listed
from kvmabi.profiles import load_host, load_kernel
from kvmabi.steps.doer import Doer
from kvmabi.steps.modelport import ModelPort

STEPS = (
    *("N 1", "I 0 5 c", "G 0 6030000000100000", "S 0 6030000000100000 01*8.", "D 7 0", "o d0 3 0 40", "q d0 3 0 0"),
    *("o d0 0 2 8000000", "o d0 4 0 0", "o 0 0 0 17", "q 0 1 0 0", "M"),
    "Y v 4020ae46 00*4.0100*13.0400*6.1000*6.",
    "Y v 4010ae42 00*8.@p00*8.",
)


def test_the_copies_are_those_of_an_emulated_kernel() -> None:
    """Addresses, sizes and directions of what was copied besides the struct."""
    host, log = load_host("sme-demo"), EventLog(kept=0)
    log.detailed = True
    seen: list[str] = []

    def compare(event: Event) -> None:
        detail = event.detail
        if detail is None or event.errno or event.what not in COPIES:
            return
        asked = Asked(detail.kind, detail.argument, detail.before, {0: 0x40000})
        found = [Copy(access.address, access.wanted, access.writes) for access in detail.pointed]
        assert copies(event.what, detail.request, asked) == found, event
        seen.append(event.what)

    log.watchers.append(compare)
    doer = Doer(ModelPort(open_system(host, load_kernel(host.kernel), log)))
    for step in STEPS:
        doer.do(step)
    doer.close()
    assert {"KVM_GET_ONE_REG", "KVM_SET_ONE_REG", "KVM_SET_DEVICE_ATTR", "KVM_GET_DEVICE_ATTR"} <= set(seen)


@pytest.mark.parametrize("name", COPIES)
def test_any_struct_is_read_within_limits(name: str) -> None:
    """Counts and lengths of a hostile struct do not decide how much is read; a struct that is cut has no copies."""
    request = vars(uapi)[name]
    size_bytes = Detail(request, 0, "vm").size_bytes
    for fill in (b"\0", b"\xff"):
        found = copies(name, request, Asked("vm", 0x1000, fill * size_bytes, {}))
        assert all(copy.size_bytes <= MOST_BYTES for copy in found)
    assert copies(name, request, Asked("vm", 0x1000, b"\0" * (size_bytes - 1), {})) == []


def test_a_list() -> None:
    """The count is written also where the IDs do not fit."""
    assert listed(0x1000, 3, with_ids=False) == [Copy(0x1000, 8, True)]
    assert listed(0x1000, 3, with_ids=True) == [Copy(0x1000, 8, True), Copy(0x1008, 24, True)]
    assert listed(0, 1 << 62, with_ids=True)[1].size_bytes == MOST_BYTES


def test_an_id_of_any_size() -> None:
    """The size is the ID's."""
    id = regid.parse("z0")
    before = id.to_bytes(8, "little") + (0x5000).to_bytes(8, "little")
    asked = Asked("vcpu", 0, before, {})
    assert copies("KVM_GET_ONE_REG", uapi.KVM_GET_ONE_REG, asked) == [Copy(0x5000, 256, True)]
