# SPDX-License-Identifier: MIT
"""The order checker and guests: what a guest changed is saved state, what it changes after a restore is its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import kvmabi
from guests.machines import DEVICE
from kvmabi import Kvm, regid, uapi
from kvmabi.errors import KvmError
from kvmabi.guests import Cpu, Mmio, Wfi
from kvmabi.kvm import Vcpu

SVCR = regid.parse("svcr")


def busy(cpu: Cpu) -> Iterator[Any]:
    """Changes its registers, also its mode, before each exit."""
    cpu.msr("zcr_el1", 15)
    cpu.msr("smcr_el1", 15)
    for round in range(1, 100):
        cpu.x[19] = round
        cpu.smstop()
        if round % 2:
            cpu.smstart()
            cpu.za[3] = bytes([round]) * cpu.svl
        cpu.z[1] = bytes([round]) * cpu.vl
        yield Mmio(DEVICE)


def idle(cpu: Cpu) -> Iterator[Any]:
    """Has nothing to do."""
    while True:
        yield Wfi()


def new_vcpu(kvm: Kvm) -> Vcpu:
    """A vCPU with all vectors."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init({"sve", "sme"})
    vcpu.finalize()
    return vcpu


def save(vcpu: Vcpu) -> dict[int, bytes]:
    """All registers, as a VMM reads them."""
    return {id: vcpu[id] for id in vcpu.reg_list()}


def restore(vcpu: Vcpu, values: dict[int, bytes], *, svcr_first: bool = True) -> None:
    """All registers; what is refused is passed over, as a careless VMM does."""
    for id in sorted(values, key=lambda id: (id == SVCR) != svcr_first):
        try:
            vcpu[id] = values[id]
        except KvmError:
            continue


def enter(vcpu: Vcpu) -> None:
    """KVM_RUN, however it ends."""
    vcpu.kvm.ioctl(vcpu.fd, uapi.KVM_RUN) if vcpu.guest is busy else _interrupted(vcpu)


def _interrupted(vcpu: Vcpu) -> None:
    with pytest.raises(KvmError, match="EINTR"):
        vcpu.run()


@pytest.mark.parametrize("after", [busy, idle, None], ids=["busy", "idle", "none"])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_a_right_restore_of_a_guests_state_is_clean(rounds: int, after: Any) -> None:
    """The save is judged as it was read, whatever the guests of source and destination do later."""
    with kvmabi.open(host="sme-demo") as kvm:
        source, target = new_vcpu(kvm), new_vcpu(kvm)
        source.guest, target.guest = busy, after
        for _ in range(rounds):
            source.run()
        values = save(source)
        source.run()
        restore(target, values)
        enter(target)
        enter(target)
        verdict = kvm.verdict()
        assert [finding.severity for finding in verdict.findings if finding.severity != "latent"] == []
        assert len(verdict.judged) == 1


def test_a_rollback_of_a_running_guest_is_clean() -> None:
    """The same vCPU goes back to a save that its guest has left behind, and runs on."""
    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = new_vcpu(kvm)
        vcpu.guest = busy
        vcpu.run()
        values = save(vcpu)
        vcpu.run()
        restore(vcpu, values)
        vcpu.run()
        assert [finding.title for finding in kvm.findings() if finding.severity != "latent"] == []


def test_a_wrong_restore_of_a_guests_state_is_found() -> None:
    """SVCR last: the vectors that the guest had filled are lost, and no others."""
    with kvmabi.open(host="sme-demo") as kvm:
        source, target = new_vcpu(kvm), new_vcpu(kvm)
        source.guest = target.guest = busy
        source.run()
        restore(target, save(source), svcr_first=False)
        target.run()
        lost = {name for finding in kvm.findings() if finding.severity == "lost" for name in finding.registers}
        assert lost == {"z1", "za.h[3]"}


def test_registers_that_a_guest_changed_itself_are_not_lost() -> None:
    """A VMM sets registers; the guest is entered and changes them: they are not lost."""
    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = new_vcpu(kvm)
        vcpu.guest = busy
        for id in (regid.parse("x19"), regid.parse("z1"), regid.parse("z5")):
            vcpu[id] = b"\7" * len(vcpu[id])
        vcpu.run()
        vcpu.run()
        assert kvm.findings() == []
