# SPDX-License-Identifier: MIT
"""Why registers come and go between kernels, and which VMM tolerates it."""

from __future__ import annotations

import pytest

from kvmabi import regid
from kvmabi.snapshot import presence, tolerances
from kvmabi.snapshot.tolerances import DESTINATION, SOURCE, tolerated_by

BUILT_IN = ("linux-6.1", "linux-6.12", "linux-7.2", "linux-7.3")
KNOWN = {
    "x0": BUILT_IN,
    "cntpct_el0": BUILT_IN[1:],
    "tcr2_el1": BUILT_IN[1:],
    "fpmr": BUILT_IN[1:],
    "sctlr2_el1": BUILT_IN[2:],
    "vendor_hyp_bmap_2": BUILT_IN[2:],
    "pmmir_el1": BUILT_IN[3:],
    "svcr": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_kernels_with_a_register(name: str) -> None:
    """As the streams of real kernels on one machine have them."""
    found = presence.kernels_with(regid.parse(name))
    assert tuple(kernel for kernel in found if kernel in BUILT_IN) == KNOWN[name]


@pytest.mark.parametrize("row", [*tolerances.reasons(), *tolerances.tolerances()], ids=lambda row: row.registers[0])
def test_every_register_of_the_file_exists(row: tolerances.Reason | tolerances.Tolerance) -> None:
    """A misspelt name would never match."""
    for name in row.registers:
        assert regid.decode(regid.parse(name.replace("[*]", "[0]"))).family


def test_a_tolerance_asks_where_and_for_the_value() -> None:
    """VENDOR_HYP_BMAP_2 may stand in the stream, with the value 0; a value that is not known does not count as 0."""
    id = regid.parse("vendor_hyp_bmap_2")
    assert tolerated_by(id, SOURCE, 0)
    assert not tolerated_by(id, SOURCE, 2)
    assert not tolerated_by(id, SOURCE, None)
    assert not tolerated_by(id, DESTINATION, 0)
    assert tolerated_by(regid.parse("tcr2_el1"), SOURCE, 5)
    assert tolerated_by(regid.parse("tcr2_el1"), DESTINATION)
    assert not tolerated_by(regid.parse("sctlr2_el1"), SOURCE, 0)
