# SPDX-License-Identifier: MIT
"""validate against the truth: a restore on the model of the target refuses exactly what validate calls an error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taken import taken

import kvmabi
from kvmabi import host_names, kernel_names, regid
from kvmabi.errors import KvmError
from kvmabi.model.plan import SVCR, Plan, Stage
from kvmabi.snapshot.snapshot import Fact, Snapshot
from kvmabi.snapshot.target import Target
from kvmabi.snapshot.validate import validate

LOSSES = frozenset({"beyond-length", "other-mode-length", "za-missing", "vectors-missing", "vls-missing"})
"""Errors that are no refusals: the restore works and something is lost."""
NAMES = st.sampled_from(
    [
        *(
            "x3",
            "pc",
            "pstate",
            "svcr",
            "sve_vls",
            "sme_vls",
            "v2",
            "z2",
            "p3",
            "ffr",
            "za.h[5]",
            "za.h[40]",
            "zt0",
            "fpcr",
        ),
        *("midr_el1", "mpidr_el1", "ctr_el0", "clidr_el1", "id_aa64pfr0_el1", "id_aa64pfr1_el1", "id_aa64smfr0_el1"),
        *("id_aa64isar1_el1", "id_dfr0_el1", "oslsr_el1", "psci_version", "smccc_arch_workaround_2", "vendor_hyp_bmap"),
        *("vendor_hyp_bmap_2", "ccsidr[0]", "ccsidr[9]", "pmcr_el0", "tcr2_el1", "fpmr", "cntv_ctl_el0", "smpri_el1"),
    ]
)
VALUES = st.one_of(
    st.integers(0, 3), st.integers(0, (1 << 512) - 1), st.sampled_from([(1 << n) - 1 for n in (4, 8, 64)])
)


def refusals(saved: Snapshot, target: Target) -> list[str]:
    """What a restore on the target refuses: INIT, or the names of registers."""
    assert target.host is not None
    refused = []
    with kvmabi.open(host=target.host, kernel=target.kernel, checked=False) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        for step in Plan.of(saved.vcpus[0].registers).steps():
            try:
                if step.stage is Stage.INIT:
                    vcpu.init(saved.features or ())
                elif step.id is None:
                    if {"sve", "sme"} & (saved.features or set()):
                        vcpu.finalize()
                else:
                    vcpu[step.id] = saved.vcpus[0].registers[step.id]
            except (KvmError, kvmabi.UsageError):
                if step.stage is Stage.INIT:
                    return ["INIT"]
                refused.append("FINALIZE" if step.id is None else regid.name_of(step.id))
    return refused


def agree(saved: Snapshot, target: Target) -> None:
    """What the restore refuses is an error, and an error that is not about lost bits is refused."""
    report = validate(saved, target)
    refused = refusals(saved, target)
    rules = {finding.rule.id for finding in report.errors}
    named = {regid.name_of(id) for finding in report.errors for id in finding.registers}
    assert rules or not refused, f"refused: {refused}\n{report}"
    assert refused or not rules - LOSSES, str(report)
    if "INIT" not in refused and SVCR not in {id for finding in report.errors for id in finding.registers}:
        assert set(refused) <= named, f"refused: {set(refused) - named}\n{report}"


@pytest.mark.slow
@settings(max_examples=100)
@given(
    source=st.sampled_from(host_names()),
    host=st.sampled_from(host_names()),
    kernels=st.tuples(st.sampled_from(kernel_names()), st.sampled_from(kernel_names())),
    svcr=st.integers(0, 3),
)
def test_migration_between_hosts(source: str, host: str, kernels: tuple[str, str], svcr: int) -> None:
    """From any host and kernel to any other."""
    saved = taken(source, kernels[0], svcr=svcr)
    saved.unknown = frozenset({Fact.ORDER})
    agree(saved, Target.of(host=host, kernel=kernels[1]))


@pytest.mark.slow
@settings(max_examples=150)
@given(
    host=st.sampled_from(host_names()),
    kernel=st.sampled_from(kernel_names()),
    svcr=st.integers(0, 3),
    changes=st.dictionaries(NAMES, VALUES, min_size=1, max_size=3),
)
def test_changed_values(host: str, kernel: str, svcr: int, changes: dict[str, int]) -> None:
    """A snapshot with some registers added or changed, on its own host."""
    saved = taken(host, kernel, svcr=svcr)
    saved.unknown = frozenset({Fact.ORDER})
    for name, value in changes.items():
        id = regid.parse(name)
        size_bytes = regid.decode(id).size_bytes
        saved.vcpus[0].registers[id] = (value & (1 << 8 * size_bytes) - 1).to_bytes(size_bytes, "little")
    agree(saved, Target.of(host=host, kernel=kernel))
