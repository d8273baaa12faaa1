# SPDX-License-Identifier: MIT
"""Kernel profiles: loading, errors and comparisons."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from kvmabi.errors import UsageError
from kvmabi.profiles import host_names, kernel_names, load_host, load_kernel
from kvmabi.profiles.compare import NAMES, diff, meanings
from kvmabi.profiles.kernel import Kernel
from kvmabi.profiles.switches import Switches, described, names


@pytest.mark.parametrize("name", kernel_names())
def test_every_built_in_kernel_loads(name: str) -> None:
    """Each profile is complete and has the name of its file."""
    assert load_kernel(name).name == name


@pytest.mark.parametrize("name", host_names())
def test_every_built_in_host_loads_with_its_kernel(name: str) -> None:
    """Each host names an existing kernel and the source of its recording."""
    host = load_host(name)
    assert load_kernel(host.kernel)
    assert host.recorded


def test_every_switch_is_described() -> None:
    """The table describes exactly the switches that rules read."""
    assert names() == [field.name for field in fields(Switches)]
    assert set(names()) == set(described())


def test_every_other_field_has_a_meaning() -> None:
    """A comparison can explain each field of a profile."""
    assert {field.name for field in fields(Kernel)} - NAMES == set(meanings())


def test_a_series_is_the_same_as_its_resend() -> None:
    """v11 and v12 do not differ for userspace."""
    assert diff("sme-v11", "sme-v12") == []


def test_diff_tells_what_changed_from_v10_to_v12() -> None:
    """The differences between the series are the switches by which the profiles differ."""
    assert {row[0] for row in diff("sme-v10", "sme-v12")} == {
        "za_id_rows",
        "za_row_alias_rows",
        "zt0_space",
        "reg_list_follows_svcr",
        "reg_list_counts_unwritten",
    }


def test_a_profile_of_the_users_own_changes_numbers(tmp_path: Path) -> None:
    """Feature bit and capability of SME are data."""
    own = tmp_path / "mine.toml"
    own.write_text('base = "sme-v12"\nname = "mine"\n[features]\nsme = { bit = 11, capability = 260 }\n')
    assert load_kernel(str(own)).features["sme"] == (11, 260)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "linux-7.3"\n[switches]\nno_such = true\n', "switches.no_such"),
        ('base = "linux-7.3"\n[switches]\nza_id_rows = 7\n', "switches.za_id_rows"),
        ('base = "linux-7.3"\nlist_order = ["core", "core"]\n', "list_order"),
        ('base = "linux-7.3"\nwithout = ["no_such_el1"]\n', "without"),
        ('base = "linux-7.3"\n[sysregs]\nmidr_el1 = { enc = [1] }\n', "sysregs.midr_el1"),
    ],
)
def test_a_wrong_profile_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    """The error names the field."""
    own = tmp_path / "wrong.toml"
    own.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_kernel(str(own))
