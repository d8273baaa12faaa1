# SPDX-License-Identifier: MIT
"""Snapshots of modelled vCPUs for tests: every listed register is read, as a VMM would."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import kvmabi
from kvmabi.errors import KvmError
from kvmabi.profiles import Host, Kernel
from kvmabi.snapshot.snapshot import Origin, Snapshot, VcpuSnapshot

NOT_ALWAYS = frozenset({"el1_32bit", "power_off", "has_el2", "has_el2_e2h0", "pmu_v3_strict"})
"""Features that exclude others or change what a register list shows."""
PTRAUTH = frozenset({"ptrauth_address", "ptrauth_generic"})


def taken(
    host: str | Host,
    kernel: str | Kernel | None = None,
    *,
    svcr: int = 0,
    without: Iterable[str] = (),
    also: Iterable[str] = (),
    format: str = "model",
    lengths: dict[str, bytes] | None = None,
    vcpus: int = 1,
) -> Snapshot:
    """A snapshot of vCPUs with all features that the host offers, except those ``without``.

    ``svcr`` is written where the vCPU has SME, ``lengths`` are written to sve_vls and sme_vls before FINALIZE.
    """
    with kvmabi.open(host=host, kernel=kernel, checked=False) as kvm:
        vm = kvm.create_vm()
        saved, features = [], frozenset()
        for index in range(vcpus):
            vcpu = vm.create_vcpu(index)
            offered = kvm.vcpu_model(vcpu.fd).system.features
            features = (offered - NOT_ALWAYS - frozenset(without)) | (offered & frozenset(also))
            vcpu.init(features)
            for name, value in (lengths or {}).items():
                vcpu[name] = value
            if features & {"sve", "sme"}:
                vcpu.finalize()
            if svcr and "sme" in features:
                vcpu["svcr"] = svcr
            saved.append(VcpuSnapshot(index, _read(vcpu)))
    return Snapshot(format, saved, Origin.KVM, features)


def _read(vcpu: kvmabi.Vcpu) -> dict[int, bytes]:
    """What can be read of what is listed: some kernels list registers that the mode does not have."""
    registers = {}
    for id in vcpu.reg_list():
        with suppress(KvmError):
            registers[id] = vcpu[id]
    return registers
