# SPDX-License-Identifier: MIT
"""Saves a vCPU and restores it to another one without loss: the right order, in Python.

Run it with: python vmm_examples/save_restore.py
"""

import kvmabi
from kvmabi import Vcpu, Vm, regid
from kvmabi.profiles import sysregs

FEATURES = {"sve", "sme"}
VECTOR_LENGTHS = ("sve_vls", "sme_vls")
FREE_RUNNING = {regid.name_of(id) for id in sysregs.free_running_ids()}


def running_guest(vm: Vm) -> Vcpu:
    """A vCPU whose guest is in the middle of a matrix product: SM and ZA are 1, Z and ZA hold data."""
    vcpu = vm.create_vcpu(0)
    vcpu.init(FEATURES)
    vcpu.finalize()
    vcpu["svcr"] = 3
    for id in vcpu.reg_list():
        register = regid.decode(id)
        if register.family in ("sve", "sme") and register.name not in VECTOR_LENGTHS:
            vcpu[id] = bytes(1 + byte % 255 for byte in range(register.size_bytes))
    return vcpu


def save(vcpu: Vcpu) -> dict[str, bytes]:
    """All visible registers. Reads the list again, because it depends on SVCR."""
    return {name: vcpu[name] for name in vcpu.names()}


def restore(vm: Vm, saved: dict[str, bytes]) -> Vcpu:
    """Vector lengths, FINALIZE, SVCR, then all other registers."""
    vcpu = vm.create_vcpu(0)
    vcpu.init(FEATURES)
    for name in VECTOR_LENGTHS:
        vcpu[name] = saved[name]
    vcpu.finalize()
    vcpu["svcr"] = saved["svcr"]
    for name, value in saved.items():
        if name not in (*VECTOR_LENGTHS, "svcr"):
            vcpu[name] = value
    return vcpu


def main() -> None:
    """Save, restore, and print the findings."""
    with kvmabi.open(host="sme-demo") as kvm:
        saved = save(running_guest(kvm.create_vm()))
        restored = restore(kvm.create_vm(), saved)
        different = [name for name, value in save(restored).items() if value != saved.get(name)]
        findings = kvm.findings()
        print(f"{len(saved)} registers saved and restored, {len(set(different) - FREE_RUNNING)} differ")
        for finding in findings:
            print(finding)


if __name__ == "__main__":
    main()
