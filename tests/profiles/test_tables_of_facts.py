# SPDX-License-Identifier: MIT
"""Facts about features and registers: each is typed once, in a table that is checked when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.model import system
from kvmabi.profiles import features, files, idregs, kernel_names, load_kernel, sysregs
from kvmabi.profiles.kernel import LIST_GROUPS


@pytest.fixture
def fresh() -> Iterator[None]:
    """idregs.toml is read again, now and after the test."""
    caches = (idregs._data, idregs._described, idregs.clears, idregs._demands, idregs.demands, idregs.nested)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize(
    ("key", "row", "error"),
    [
        (
            "demands",
            {"field": "ctr_el0[14+:2]", "least": 2, "switch": "pfr0_keeps_aarch46"},
            "did you mean pfr0_keeps_",
        ),
        ("demands", {"field": "ctr_el0[14+:2]", "least": 2, "switch": "zt0_space"}, "is not a choice"),
        ("demands", {"field": "ctr_el0[14+:2]", "leats": 2}, "did you mean least?"),
        ("demands", {"field": "ctr_el0[14+:2]", "least": 2, "needs": ["svee"]}, "did you mean sve?"),
        (
            "clears",
            {"field": "ctr_el0[14+:2]", "needs": ["sve"], "switch": "zfr0_with_smee"},
            "did you mean zfr0_with_",
        ),
        ("clears", {"field": "ctr_el0[14]", "needs": ["sve"]}, "is not a field such as"),
        ("clears", {"field": "ctr_el9[14+:2]", "needs": ["sve"]}, "no register 'ctr_el9'"),
    ],
)
def test_a_mistyped_name_in_idregs_is_an_error(
    fresh: None, monkeypatch: pytest.MonkeyPatch, key: str, row: dict[str, object], error: str
) -> None:
    """A mistyped switch does not mean "always": the table is refused when it is loaded."""
    table = files.builtin_table("idregs.toml")
    table[key].append(row)
    monkeypatch.setattr(files, "builtin_table", lambda name, package: table if name == "idregs.toml" else {})
    with pytest.raises(UsageError, match=rf"idregs\.toml: {key}\[\d+\]\.") as raised:
        idregs.clears() if key == "clears" else idregs.demands(regid.parse("ctr_el0"))
    assert error in str(raised.value).replace("\n", "")


@pytest.mark.parametrize("row", [[0, 4, "FTR_LOWER_SAVE"], [0, 4], [0, 4, "FTR_EXACT"], [0, 4, "FTR_EXACT", "0"], 3])
def test_a_mistyped_rule_of_a_field_is_an_error(fresh: None, monkeypatch: pytest.MonkeyPatch, row: object) -> None:
    """A rule that the table misspells is not FTR_EXACT of something."""
    table = files.builtin_table("idregs.toml")
    table["fields"]["ctr_el0"] = [row]
    monkeypatch.setattr(files, "builtin_table", lambda name, package: table)
    with pytest.raises(UsageError, match=r"idregs\.toml: fields\.ctr_el0: .* is not a field"):
        idregs._described()


@pytest.mark.parametrize(
    ("rule", "more", "limit", "safe"),
    [
        ("FTR_LOWER_SAFE", {}, 2, {0, 1, 2}),
        ("FTR_LOWER_SAFE", {"signed": True}, 2, {0, 1, 2, *range(8, 16)}),
        ("FTR_HIGHER_SAFE", {}, 13, {13, 14, 15}),
        ("FTR_HIGHER_OR_ZERO_SAFE", {}, 13, {0, 13, 14, 15}),
        ("FTR_HIGHER_OR_ZERO_SAFE", {}, 0, {0}),
        ("FTR_EXACT", {"exact": 1}, 5, {1, 5}),
    ],
)
def test_rules_of_safe_values(rule: str, more: dict[str, object], limit: int, safe: set[int]) -> None:
    """Each rule of the kernel accepts exactly its values of a 4-bit field."""
    field = idregs.Field(0, 4, 4, rule, **more)  # type: ignore[arg-type]
    assert {value for value in range(16) if field.safe(value << 4, limit << 4)} == safe


def test_free_running_registers() -> None:
    """The counters of both timers, and ISTATUS of their control registers."""
    assert set(map(regid.name_of, sysregs.free_running_ids())) == {"cntpct_el0", "cntvct_el0"}
    assert {regid.name_of(id): bits for id, bits in sysregs.status_bits().items()} == {
        "cntp_ctl_el0": 4,
        "cntv_ctl_el0": 4,
    }


def test_scope_is_a_column() -> None:
    """ID registers belong to the VM; MPIDR_EL1 and all else to the vCPU."""
    shared = {reg.name for reg in sysregs.table() if reg.shared}
    assert {"id_aa64pfr0_el1", "ctr_el0", "midr_el1", "smidr_el1"} <= shared
    assert {"mpidr_el1", "clidr_el1", "svcr"}.isdisjoint(shared)
    assert len(shared) == 61


def test_every_feature_of_a_kernel_has_a_row() -> None:
    """A kernel profile has no feature that the table does not describe."""
    kernel_features = {name for kernel in kernel_names() for name in load_kernel(kernel).features}
    assert kernel_features == set(features.table())


def test_short_names_stand_for_features() -> None:
    """An alias may stand for two; other names stay, also unknown ones."""
    assert features.expand(["ptrauth", "pmu", "sve", "sve", "x"]) == (
        "ptrauth_address",
        "ptrauth_generic",
        "pmu_v3",
        "sve",
        "x",
    )
    assert features.aliases().keys() == {"el2", "psci", "pmu", "ptrauth"}


def test_a_string_is_not_a_set_of_features() -> None:
    """Its letters are not features."""
    with pytest.raises(UsageError, match="not as str 'sve'"):
        features.expand("sve")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({"sve", "sme"}, ""),
        ({"ptrauth_generic"}, "ptrauth_address and ptrauth_generic go together"),
        ({"ptrauth_address"}, "ptrauth_address and ptrauth_generic go together"),
        ({"ptrauth_address", "ptrauth_generic"}, ""),
        ({"pmu_v3_strict"}, "pmu_v3_strict needs pmu_v3"),
        ({"el1_32bit", "has_el2"}, "el1_32bit and has_el2 exclude one another"),
        ({"has_el2_e2h0"}, ""),
    ],
)
def test_what_goes_together(names: set[str], why: str) -> None:
    """INIT takes has_el2_e2h0 alone, yet a VMM asks for it with has_el2."""
    assert features.conflict(frozenset(names)) == why
    assert features.needs("has_el2_e2h0") == ("has_el2",)
    assert features.needs("unknown") == ()


def test_labels_of_recordings() -> None:
    """A label is written in the table's order and read back."""
    assert features.label({"sve", "ptrauth_generic", "psci_0_2", "ptrauth_address"}) == "SVE+PSCI+PA+PG"
    assert features.label(()) == "none"
    assert {features.by_label()[rules.label] for rules in features.table().values()} == set(features.table())


def test_power_off_does_not_last() -> None:
    """Every other feature does."""
    assert features.lasting({"power_off", "sve", "bit 30"}) == {"sve", "bit 30"}


def test_register_families_have_one_source() -> None:
    """The model has an implementation of each group that a kernel can list."""
    assert set(system.FAMILIES) == LIST_GROUPS
    assert set(regid.FAMILIES.values()) < LIST_GROUPS
    assert json.dumps(sorted(LIST_GROUPS))
