# SPDX-License-Identifier: MIT
"""What is saved is what is restored: on every host, in every mode, with any number of vCPUs, or an error says so."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kvmabi
from kvmabi import Kvm, UsageError, Vcpu, regid, uapi
from kvmabi.order.values import same
from kvmabi.snapshot.restoring import RestoreError, restore
from kvmabi.snapshot.saving import save
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot
from snapshot.states import Machine, machines

DEMO = "sme-demo"


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with kvmabi.open(host=DEMO) as opened:
        yield opened


def vector_vcpu(kvm: Kvm, svcr: int = 0) -> Vcpu:
    """A vCPU with SVE and SME in a mode."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init({"sve", "sme"})
    vcpu.finalize()
    vcpu["svcr"] = svcr
    return vcpu


def differences(one: Snapshot, other: Snapshot) -> list[str]:
    """What differs between two saves, except counters."""
    assert len(one.vcpus) == len(other.vcpus)
    different = []
    for first, second in zip(one.vcpus, other.vcpus, strict=True):
        assert list(first.registers) == list(second.registers)
        different += [
            regid.name_of(id) for id, value in first.registers.items() if not same(id, value, second.registers[id])
        ]
        assert (first.index, first.mp_state, first.serror) == (second.index, second.mp_state, second.serror)
    return different


def round_trip(machine: Machine) -> None:
    """Save a machine, restore it to another VM, save that one: all is equal, and the order checker finds nothing."""
    with machine.open() as kvm:
        saved = save(machine.create(kvm))
        vm = kvm.create_vm()
        restored = restore(saved, vm)
        assert differences(saved, save(vm)) == []
        assert restored.at_reset == {}
        assert [finding for finding in kvm.verdict().findings if finding.vm == vm.number] == []
        assert saved.features in (machine.features, machine.features - {"power_off"})  # which lasts on some kernels
        assert saved.unknown == frozenset()


@pytest.mark.slow
@pytest.mark.parametrize("host", kvmabi.host_names())
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(data=st.data())
def test_round_trip(host: str, data: st.DataObject) -> None:
    """Save and restore are inverse: all kernels, features, modes, reduced lengths, random values, 1 to 3 vCPUs."""
    round_trip(data.draw(machines(host)))


@pytest.mark.parametrize("kernel", ["sme-v12", "sme-forecast"])
@pytest.mark.parametrize("svcr", range(4))
def test_every_mode(svcr: int, kernel: str) -> None:
    """The four modes of SVCR, on a host whose SVE and SME lengths differ, with lengths cut off at the top."""
    round_trip(Machine("sme-sve128-256-512-sme128-512-1024", kernel, frozenset({"sve", "sme"}), (svcr, 3), 1, svcr))


def test_facts_are_recorded(kvm: Kvm) -> None:
    """Features, target, vector lengths, mode, MP state, events, host and kernel."""
    vcpu = vector_vcpu(kvm, 3)
    saved = save(vcpu)
    assert (saved.origin, saved.host, saved.kernel) == (Origin.KVM, DEMO, kvm.kernel.name)
    assert (saved.features, saved.target) == (frozenset({"sve", "sme"}), kvm.kernel.target)
    assert (saved.sve_bits, saved.sme_bits) == (kvm.host.sve_vector_bits, kvm.host.sme_vector_bits)
    assert saved.vcpus[0].svcr == 3
    assert saved.vcpus[0].mp_state == uapi.KVM_MP_STATE_RUNNABLE
    assert saved.vcpus[0].serror is not None
    assert not saved.vcpus[0].serror[0]


def test_mp_state_and_serror_are_restored(kvm: Kvm) -> None:
    """A stopped vCPU stays stopped, a pending SError pending."""
    vcpu = vector_vcpu(kvm)
    kvm.ioctl(vcpu.fd, uapi.KVM_SET_MP_STATE, uapi.KVM_MP_STATE_STOPPED.to_bytes(4, "little"))
    events = uapi.ffi.new("struct kvm_vcpu_events *")
    events.exception.serror_pending = 1
    kvm.ioctl(vcpu.fd, uapi.KVM_SET_VCPU_EVENTS, events)
    saved = save(vcpu)
    vm = kvm.create_vm()
    restore(saved, vm)
    assert save(vm).vcpus[0].mp_state == uapi.KVM_MP_STATE_STOPPED
    assert save(vm).vcpus[0].serror == saved.vcpus[0].serror
    assert saved.vcpus[0].serror is not None
    assert saved.vcpus[0].serror[0]


def test_vm_wide_registers_are_written_once(kvm: Kvm) -> None:
    """ID registers are written by the first vCPU only, and all vCPUs are initialised before any register is set."""
    source = kvm.create_vm()
    for index in range(3):
        source.create_vcpu(index).init()
    saved = save(source)
    first = len(kvm.log.events)
    restore(saved, kvm.create_vm())
    events = [event for event in list(kvm.log.events)[first:] if event.vcpu is not None]
    sets = [event for event in events if event.what == "KVM_SET_ONE_REG"]
    id_register = regid.parse("id_aa64pfr0_el1")
    assert [event.vcpu for event in sets if event.register == id_register] == [0]
    assert [event.what for event in events[:3]] == ["KVM_ARM_VCPU_INIT"] * 3


def test_refusals_are_listed() -> None:
    """On a host without SME the restore fails, and names every refused register with errno and reason."""
    with kvmabi.open(host=DEMO) as kvm:
        saved = save(vector_vcpu(kvm, 3))
    with kvmabi.open(host="sve512-no-sme") as kvm, pytest.raises(RestoreError) as failed:
        restore(saved, kvm.create_vm(), features={"sve"})
    names = {regid.name_of(failure.register) for failure in failed.value.failures if failure.register is not None}
    assert {"svcr", "sme_vls", "za.h[0]", "za.h[63]", "zt0"} <= names
    assert all(failure.reason for failure in failed.value.failures)
    assert failed.value.errno in (errno.ENOENT, errno.EINVAL)
    assert "KVM_SET_ONE_REG sme_vls: " in str(failed.value)


def test_init_that_fails_ends_the_restore(kvm: Kvm) -> None:
    """Features that the kernel lacks are one failure, not hundreds."""
    saved = save(vector_vcpu(kvm))
    with kvmabi.open(host="cortex-a57", kernel="sme-v12") as other, pytest.raises(RestoreError) as failed:
        restore(saved, other.create_vm())
    assert [failure.step for failure in failed.value.failures] == ["KVM_ARM_VCPU_INIT"]


def test_a_value_that_is_not_kept_is_a_failure(kvm: Kvm) -> None:
    """A vector that is cut without an error, because the list lacks the lengths, is found by reading back."""
    with kvmabi.open(host="sve512-no-sme") as other:
        vcpu = other.create_vm().create_vcpu(0)
        vcpu.init({"sve"})
        vcpu.finalize()
        vcpu["z3"] = b"\x55" * 256
        saved = save(vcpu)
    z3, x0 = regid.parse("z3"), regid.parse("x0")
    saved.sve_bits = None
    saved.vcpus[0].registers = {x0: bytes(8), z3: saved.vcpus[0].registers[z3]}
    with pytest.raises(RestoreError) as failed:
        restore(saved, kvm.create_vm())
    (failure,) = failed.value.failures
    assert (failure.register, failure.errno, failure.name) == (z3, None, "")
    assert "byte 32" in str(failure)


def test_tolerated_registers(kvm: Kvm) -> None:
    """Registers that the caller gives up are reported, and are no failure."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init()
    saved = save(vcpu)
    saved.vcpus[0].registers[regid.parse("midr_el1")] = bytes(8)
    with pytest.raises(RestoreError, match="midr_el1"):
        restore(saved, kvm.create_vm())
    restored = restore(saved, kvm.create_vm(), tolerate={"midr_el1"})
    assert [failure.register for failure in restored.tolerated] == [regid.parse("midr_el1")]


def test_registers_that_stay_at_reset(kvm: Kvm) -> None:
    """What the destination lists and the snapshot lacks is reported, vCPU by vCPU."""
    saved = save(vector_vcpu(kvm, 2))
    del saved.vcpus[0].registers[regid.parse("zt0")]
    restored = restore(saved, kvm.create_vm())
    assert restored.at_reset == {0: (regid.parse("zt0"),)}


def test_restore_into_a_used_vcpu(kvm: Kvm) -> None:
    """A rollback: the vCPU is finalised already, so its lengths are refused, and they are the saved ones."""
    vcpu = vector_vcpu(kvm, 3)
    vcpu["za.h[1]"] = b"\x11" * 256
    saved = save(vcpu)
    vcpu["svcr"] = 0
    restored = restore(saved, vcpu)
    assert {regid.name_of(failure.register or 0) for failure in restored.refused_equal} == {"sve_vls", "sme_vls"}
    assert differences(saved, save(vcpu)) == []


def test_features_are_inferred_where_they_are_unknown(kvm: Kvm) -> None:
    """A snapshot without features is restored with those that its registers show."""
    saved = save(vector_vcpu(kvm, 1))
    saved.features, saved.target = None, None
    assert restore(saved, kvm.create_vm()).features == {"sve", "sme"}


def test_a_wrongly_sized_register_is_a_failure(kvm: Kvm) -> None:
    """It is neither padded nor cut."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init()
    saved = save(vcpu)
    saved.vcpus[0].registers[regid.parse("x0")] = bytes(4)
    with pytest.raises(RestoreError, match="has 4 bytes of it, the ID says 8"):
        restore(saved, kvm.create_vm())


def test_misuse(kvm: Kvm) -> None:
    """Numbers of vCPUs that do not fit, an empty VM, mixed vCPUs, and unknown features are the caller's mistake."""
    vcpu = vector_vcpu(kvm)
    saved = save(vcpu)
    with pytest.raises(UsageError, match="1 vCPUs, 2 were given"):
        restore(saved, [vcpu, vcpu])
    with pytest.raises(UsageError, match="no vCPU"):
        save(kvm.create_vm())
    with pytest.raises(UsageError, match="no vCPU"):
        save([])
    with pytest.raises(UsageError, match="no vCPU"):
        restore(Snapshot("model", []), kvm.create_vm())
    with kvmabi.open() as other, pytest.raises(UsageError, match="different"):
        save([vcpu, vector_vcpu(other)])
    with pytest.raises(UsageError, match="no vCPU feature 'warp'"):
        restore(saved, kvm.create_vm(), features={"warp"})
    with pytest.raises(UsageError, match="takes a Vm"):
        save("vcpu")  # type: ignore[arg-type]


def test_unknown_facts_are_named(kvm: Kvm) -> None:
    """What no ioctl reports is unknown, not empty."""
    with pytest.raises(kvmabi.KvmError, match="EBADF"):
        save(1 << 20)
    assert Fact.FEATURES not in save(vector_vcpu(kvm)).unknown


@pytest.mark.parametrize("kernel", ["linux-6.1", "linux-6.12", "linux-7.2"])
def test_views_that_clear_come_first(kernel: str) -> None:
    """PMCNTENSET_EL0 has its value also where a write of PMCNTENCLR_EL0 clears it bit by bit, as a guest's does."""
    with kvmabi.open(host="neoverse-v1", kernel=kernel) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"pmu_v3"})
        for name in ("pmcntenclr_el0", "pmovsclr_el0", "pmintenclr_el1"):
            vcpu[name] = (1 << 64) - 1
        vcpu["pmcntenset_el0"], vcpu["pmovsset_el0"], vcpu["pmintenset_el1"] = 0x5, 0x3, 0x6
        saved = save(vcpu)
        target = kvm.create_vm().create_vcpu(0)
        restore(saved, target)
        assert [target.read(name) for name in ("pmcntenset_el0", "pmovsset_el0", "pmintenset_el1")] == [0x5, 0x3, 0x6]


def test_lengths_that_are_known_only_as_sets(kvm: Kvm) -> None:
    """A format without SVE_VLS and SME_VLS, whose lengths the user gives: the vCPU gets them."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init({"sve", "sme"})
    vcpu["sve_vls"], vcpu["sme_vls"] = 1, 2
    vcpu.finalize()
    saved = save(vcpu)
    for name in ("sve_vls", "sme_vls"):
        del saved.vcpus[0].registers[regid.parse(name)]
    vm = kvm.create_vm()
    restored = restore(saved, vm)
    assert [vm.vcpus()[0].read(name) for name in ("sve_vls", "sme_vls")] == [1, 2]
    assert restored.at_reset == {}
    saved.sve_bits = (100,)
    with pytest.raises(UsageError, match="multiple of 128"):
        restore(saved, kvm.create_vm())


@pytest.mark.parametrize("svcr", range(4))
def test_registers_that_are_listed_and_hold_nothing(svcr: int) -> None:
    """One SME series lists ZA while it is off, and FFR in streaming mode without FA64: there is nothing to save."""
    round_trip(Machine("sme-sve256-sme512-nofa64", "sme-v10", frozenset({"sve", "sme"}), (svcr,), 1, svcr))
