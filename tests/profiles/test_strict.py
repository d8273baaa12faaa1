# SPDX-License-Identifier: MIT
"""Profiles have no unused keys: an unknown key or register is reported in one line with file and field."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import kvmabi
from kvmabi.errors import UsageError
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.profiles.files import Reader

HOST = 'name = "h"\nkernel = "linux-7.3"\nrecorded = "nothing"\n'
CAPTURE = {
    "kernel_profile": "linux-7.3",
    "sve_vector_bits": [128],
    "capabilities": {"system": {}, "vm": {}},
    "registers": {},
    "cpuinfo_features": "fp asimd",
    "kernel_args": "quiet",
    "notes": ["whatever else the recorder adds"],
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sme_vectors_bits = [512]\n", "sme_vectors_bits: unknown key: did you mean sme_vector_bits?"),
        ("zzz = 1\n", "zzz: unknown key: known ones are capabilities, counter_hz, cpu, "),
        ("[capabilities.bth]\n0 = 1\n", "capabilities.bth: unknown key: did you mean both?"),
        ("[registers]\nid_aa64pfr0_el2 = 1\n", "registers.id_aa64pfr0_el2: "),
        ("[registers]\nnonsense = 1\n", "registers.nonsense: "),
    ],
)
def test_a_hosts_unknown_key_is_reported(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file, the key and a suggestion."""
    own = tmp_path / "own.toml"
    own.write_text(HOST + text)
    with pytest.raises(UsageError) as error:
        load_host(str(own))
    assert str(error.value).startswith(f"{own}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".toml", ".json"])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"max_feature": 3}, "max_feature: unknown key: did you mean max_features?"),
        ({"zzz": 1}, "zzz: unknown key: known ones are "),
        ({"features": {"sme": {"bit": 9, "capabilty": 260}}}, "features.sme.capabilty: unknown key: did you mean cap"),
        ({"writable_masks": {"id_aa64pfr9_el1": 1}}, "writable_masks.id_aa64pfr9_el1: "),
        ({"replaces": ["writable_mask"]}, "replaces: 'writable_mask' is unknown: did you mean writable_masks?"),
        ({"replaces": "switches"}, "replaces: must be an array"),
        ({"timers": [["cntv_ctl_el0"]]}, "timers: must be an array of strings"),
        ({"timers": ["cntv_ctl_el9"]}, "timers: 'cntv_ctl_el9' is unknown: did you mean cntv_ctl_el0?"),
        ({"sysregs": {"svrc": {}}}, "sysregs.svrc: unknown key: did you mean svcr?"),
        ({"switches": {"zt0_spaec": "vm"}}, "switches.zt0_spaec: unknown key: did you mean zt0_space?"),
    ],
)
def test_a_kernels_unknown_key_is_reported(tmp_path: Path, table: dict[str, object], message: str, suffix: str) -> None:
    """A kernel profile in JSON is not a capture, so it is as strict as TOML."""
    own = tmp_path / f"own{suffix}"
    table = {"base": "linux-7.3", **table}
    own.write_text(json.dumps(table) if suffix == ".json" else "\n".join(f"{k} = {_toml(v)}" for k, v in table.items()))
    with pytest.raises(UsageError) as error:
        load_kernel(str(own))
    assert str(error.value).startswith(f"{own}: {message}")


def test_the_file_at_fault_is_named_not_the_one_based_on_it(tmp_path: Path) -> None:
    """An error in a base names the file of the base."""
    below, own = tmp_path / "below.toml", tmp_path / "own.toml"
    below.write_text('base = "linux-7.3"\nzzz = 1\n')
    own.write_text(f'base = "{below}"\n')
    with pytest.raises(UsageError, match=r"below\.toml: zzz"):
        load_kernel(str(own))


def test_a_capture_can_hold_more(tmp_path: Path) -> None:
    """A captured host can have keys that kvmabi does not read."""
    own = tmp_path / "captured.json"
    own.write_text(json.dumps(CAPTURE))
    assert load_host(str(own)).sve_vector_bits == (128,)


def test_a_captures_wrong_register_names_its_field(tmp_path: Path) -> None:
    """A register name in a capture is an error that names the field: IDs are in hex."""
    own = tmp_path / "captured.json"
    own.write_text(json.dumps(CAPTURE | {"registers": {"midr_el1": "00"}}))
    with pytest.raises(UsageError) as error:
        load_host(str(own))
    assert str(error.value).startswith(f"{own}: registers.midr_el1: ")


def test_reader_rejects_unknown_keys() -> None:
    """Only the named keys are allowed; each of them is optional."""
    Reader("f", {"a": 1}).only(("a", "b"))
    Reader("f", {}).only(("a",), "sub")
    with pytest.raises(UsageError, match=r"f: sub\.c: unknown key"):
        Reader("f", {"sub": {"c": 1}}).only(("a",), "sub")


def test_loaders_give_profiles() -> None:
    """A valid profile is accepted."""
    assert isinstance(load_host("sme-demo"), Host)
    assert isinstance(load_kernel("sme-v12"), Kernel)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


@pytest.mark.parametrize("wrong", [3, None, ["sme-demo"], 1.5])
def test_what_is_not_a_profile_is_a_usage_error(wrong: object) -> None:
    """The error says what a host and a kernel can be."""
    with pytest.raises(
        UsageError, match=rf"^{re.escape(repr(wrong))} is not a host: take one of a64fx, .* \.json file$"
    ):
        load_host(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=rf"^{re.escape(repr(wrong))} is not a kernel: take one of linux-6\.1, "):
        load_kernel(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("host", "kernel"), [(3, None), ("sme-demo", 3)])
def test_open_refuses_what_is_not_a_profile(host: object, kernel: object) -> None:
    """kvmabi.open checks its arguments."""
    with pytest.raises(UsageError, match=r"^3 is not a "):
        kvmabi.open(host=host, kernel=kernel)


def test_loaded_profiles_stay_as_they_are() -> None:
    """Wherever a name is taken, a loaded profile is, too."""
    host, kernel = load_host("a64fx"), load_kernel("sme-v12")
    assert load_host(host) is host
    assert load_kernel(kernel) is kernel


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"needs": "sve"}, "needs: must be an array"),
        ({"kept": 1}, "kept: must be true or false"),
        ({"scoep": "vm"}, "scoep: unknown key: did you mean scope?"),
        ({"scope": "system"}, "scope: 'system' is not a choice"),
        ({"enc": [3, 0, 0, 0, 0]}, "enc: unknown key"),
    ],
)
def test_a_changed_column_has_its_type(tmp_path: Path, change: dict[str, object], error: str) -> None:
    """A kernel profile cannot put a value of a wrong type into the table of system registers."""
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"base": "linux-7.3", "sysregs": {"svcr": change}}))
    with pytest.raises(UsageError) as raised:
        load_kernel(str(own))
    assert str(raised.value).startswith(f"{own}: sysregs.svcr.{error}")
