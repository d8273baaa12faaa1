# SPDX-License-Identifier: MIT
"""The script that turns switches knows them all, and notices a few here (``make golden`` turns every one)."""

from __future__ import annotations

import sys
from itertools import islice

import pytest

from golden import turn_switches
from golden.turn_switches import OWN, failure, hosts_of, main, record_fails, trace_fails, turned, turns
from kvmabi.profiles import kernel_names, load_kernel
from kvmabi.profiles.switches import described


def test_every_switch_is_turned() -> None:
    """Each at least once away from its default, and to every value that it has in any profile that says it."""
    turned_to: dict[str, set[object]] = {}
    for _, name, value in turns([]):
        turned_to.setdefault(name, set()).add(value)
    assert set(turned_to) == set(described())
    for name, switch in described().items():
        assert turned_to[name] >= set(switch.values) - {switch.default}


def test_only_those_named_are_turned() -> None:
    """Arguments choose."""
    assert {name for _, name, _ in turns(["zt0_space"])} == {"zt0_space"}


@pytest.mark.parametrize("profile", kernel_names())
def test_a_turned_profile_differs_in_one_switch(profile: str) -> None:
    """Everything else is the profile's."""
    kernel, other = load_kernel(profile), turned(profile, "za_id_rows", 8192)
    assert other.switches.za_id_rows == 8192
    assert other.list_order == kernel.list_order


def test_every_base_was_recorded() -> None:
    """Without a host nothing could fail."""
    for profile in turn_switches.BASES:
        assert hosts_of(profile)


@pytest.mark.parametrize("name", sorted(OWN))
def test_checks_of_their_own_pass_unturned(name: str) -> None:
    """What no record holds is checked directly; the check agrees with the present profiles."""
    for profile in ("sme-v12", "sme-v10"):
        assert next(OWN[name](load_kernel(profile), profile), None) is None


@pytest.mark.parametrize(
    ("profile", "name", "value"),
    [
        ("sme-v12", "za_disabled_errno", "EINVAL"),
        ("sme-v9", "za_get_writes", False),
        ("sme-v10", "zt0_space", "follows"),
    ],
)
def test_a_turned_switch_is_noticed(profile: str, name: str, value: object) -> None:
    """Something fails; with the value that the profile has, the same records agree."""
    choices = [other for other in described()[name].values if other != getattr(load_kernel(profile).switches, name)]
    assert failure(profile, name, value if value in choices else choices[0])


@pytest.mark.slow
def test_records_and_traces_agree_unturned() -> None:
    """The script's own way of playing finds nothing wrong with a profile as it is."""
    kernel, host = load_kernel("sme-v12"), "sme-v12.nosve_nosme"
    assert not list(islice(record_fails(kernel, host), 1))
    assert not list(islice(trace_fails(kernel, host), 1))


def test_an_unnoticed_switch_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1 and its name."""
    monkeypatch.setattr(turn_switches, "failure", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["turn_switches", "za_get_writes"])
    assert main() == 1
    assert "NOTHING FAILS" in (output := capsys.readouterr().out)
    assert "za_get_writes" in output.splitlines()[-1]
