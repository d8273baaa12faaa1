# SPDX-License-Identifier: MIT
"""Saves a vCPU and restores it to another one without loss: the right order, in Python.

kvmabi.save and kvmabi.restore do the same in two calls, for whole VMs; here every ioctl is in sight.
Run it with: python vmm_examples/save_restore.py
"""

import kvmabi
from kvmabi import Plan, Vcpu, Vm, regid
from kvmabi.model.plan import Stage
from kvmabi.profiles import sysregs

FEATURES = {"sve", "sme"}
VECTOR_LENGTHS = ("sve_vls", "sme_vls")


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


def save(vcpu: Vcpu) -> dict[int, bytes]:
    """All visible registers. Reads the list again, because it depends on SVCR."""
    return {id: vcpu[id] for id in vcpu.reg_list()}


def restore(vm: Vm, saved: dict[int, bytes]) -> Vcpu:
    """INIT, vector lengths, ID registers, FINALIZE, SVCR, then all other registers: the plan has them in this order."""
    vcpu = vm.create_vcpu(0)
    for step in Plan.of(saved).steps():
        if step.stage is Stage.INIT:
            vcpu.init(FEATURES)
        elif step.stage is Stage.FINALIZE:
            vcpu.finalize()
        else:
            vcpu[step.id] = saved[step.id]
    return vcpu


def main() -> None:
    """Save, restore, and print the findings."""
    with kvmabi.open(host="sme-demo") as kvm:
        saved = save(running_guest(kvm.create_vm()))
        restored = restore(kvm.create_vm(), saved)
        different = {id for id, value in save(restored).items() if value != saved.get(id)}
        findings = kvm.findings()
        print(f"{len(saved)} registers saved and restored, {len(different - sysregs.free_running_ids())} differ")
        for finding in findings:
            print(finding)


if __name__ == "__main__":
    main()
