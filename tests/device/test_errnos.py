# SPDX-License-Identifier: MIT
"""The errno of every misuse, as real kernels answer (Documentation/virt/kvm/api.rst says less)."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from pages import NOWHERE, Edge
from vmms import RUNNING, VLS, vcpu_of

from kvmabi import Kvm, KvmError, regid, uapi
from kvmabi.kvm import Vcpu

SVE, SME, PMU, EL1_32BIT = 1 << 4, 1 << 9, 1 << 3, 1 << 1
TARGET = 5


def code(kvm: Kvm, fd: int, request: int, arg: Any = 0) -> str:
    """The errno's name, OK for success."""
    try:
        kvm.ioctl(fd, request, arg)
    except KvmError as error:
        return error.name
    return "OK"


def one_reg(name: str | int, addr: int) -> bytearray:
    """struct kvm_one_reg."""
    return bytearray(struct.pack("=QQ", name if isinstance(name, int) else regid.parse(name), addr))


def vcpu_init(*features: int, target: int = TARGET) -> bytearray:
    """struct kvm_vcpu_init."""
    words = [*features, *[0] * (7 - len(features))]
    return bytearray(struct.pack("=8I", target, *words))


def still(vcpu: Vcpu) -> dict[str, bytes]:
    """The registers that are not free-running."""
    return {name: vcpu[name] for name in vcpu.names() if name not in RUNNING}


def fresh(kvm: Kvm) -> int:
    """A vCPU's descriptor before INIT."""
    return kvm.create_vm().create_vcpu(0).fd


# --- which file an ioctl belongs to

SYSTEM = {"KVM_GET_API_VERSION": 12, "KVM_GET_VCPU_MMAP_SIZE": 8192}


@pytest.mark.parametrize(("name", "value"), SYSTEM.items())
def test_system_ioctls_take_no_argument(kvm: Kvm, name: str, value: int) -> None:
    request = vars(uapi)[name]
    assert kvm.ioctl(kvm.fd, request) == value
    assert code(kvm, kvm.fd, request, 1) == "EINVAL"


@pytest.mark.parametrize(
    ("kind", "request_name", "expected"),
    [
        ("system", "KVM_GET_ONE_REG", "EINVAL"),
        ("system", "KVM_SET_ONE_REG", "EINVAL"),
        ("system", "KVM_ARM_PREFERRED_TARGET", "EINVAL"),
        ("system", "KVM_CREATE_VCPU", "EINVAL"),
        ("system", "KVM_RUN", "EINVAL"),
        ("vcpu", "KVM_CREATE_VM", "EINVAL"),
        ("vcpu", "KVM_CREATE_VCPU", "EINVAL"),
        ("vcpu", "KVM_GET_API_VERSION", "EINVAL"),
        ("vcpu", "KVM_CHECK_EXTENSION", "EINVAL"),
        ("vcpu", "KVM_GET_REGS", "EINVAL"),
        ("vm", "KVM_GET_ONE_REG", "ENODEV"),
        ("vm", "KVM_RUN", "EINVAL"),
        ("vm", "KVM_GET_REG_LIST", "EINVAL"),
    ],
)
def test_ioctl_on_the_wrong_kind_of_file(kvm: Kvm, vcpu: Vcpu, kind: str, request_name: str, expected: str) -> None:
    """An ioctl of another kind of file is unknown to this file."""
    fd = {"system": kvm.fd, "vm": vcpu.vm.fd, "vcpu": vcpu.fd}[kind]
    assert code(kvm, fd, vars(uapi)[request_name], bytearray(64)) == expected


# --- before INIT


@pytest.mark.parametrize(
    "name",
    ["KVM_GET_REG_LIST", "KVM_GET_ONE_REG", "KVM_SET_ONE_REG", "KVM_ARM_VCPU_FINALIZE", "KVM_GET_VCPU_EVENTS"],
)
@pytest.mark.parametrize("arg", ["good", "bad"])
def test_before_init_nothing_else_counts(kvm: Kvm, name: str, arg: str) -> None:
    """ENOEXEC takes precedence, also over a bad pointer."""
    assert code(kvm, fresh(kvm), vars(uapi)[name], bytearray(64) if arg == "good" else NOWHERE) == "ENOEXEC"


def test_run_and_mp_state_before_init(kvm: Kvm) -> None:
    fd = fresh(kvm)
    assert code(kvm, fd, uapi.KVM_RUN) == "ENOEXEC"
    assert code(kvm, fd, uapi.KVM_GET_MP_STATE, bytearray(4)) == "OK"


# --- INIT


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        (vcpu_init(), "OK"),
        (vcpu_init(SVE | SME), "OK"),
        (vcpu_init(SME | EL1_32BIT), "OK"),
        (vcpu_init(1 << 5), "EINVAL"),  # one PTRAUTH alone
        (vcpu_init(0b11 << 5), "OK"),
        (vcpu_init(target=4), "EINVAL"),
        (vcpu_init(target=-1 & 0xFFFFFFFF), "EINVAL"),
        (vcpu_init(1 << 31, target=4), "EINVAL"),
        *((vcpu_init(1 << bit), "ENOENT") for bit in (10, 16, 31)),
        *((vcpu_init(*[0] * word, 1), "ENOENT") for word in range(1, 7)),
    ],
)
def test_init(kvm: Kvm, init: bytearray, expected: str) -> None:
    """Features out of range are ENOENT, those that the host or KVM lacks EINVAL; a bad target takes precedence."""
    assert code(kvm, fresh(kvm), uapi.KVM_ARM_VCPU_INIT, init) == expected


def test_refused_init_leaves_the_vcpu_uninitialised(kvm: Kvm) -> None:
    fd = fresh(kvm)
    for arg in (vcpu_init(1 << 20), vcpu_init(target=9), NOWHERE):
        assert code(kvm, fd, uapi.KVM_ARM_VCPU_INIT, arg) in ("ENOENT", "EINVAL", "EFAULT")
        assert code(kvm, fd, uapi.KVM_GET_REG_LIST, bytearray(8)) == "ENOEXEC"
    assert code(kvm, fd, uapi.KVM_ARM_VCPU_INIT, vcpu_init(SVE)) == "OK"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("again", "expected"),
    [(SVE | SME, "OK"), (SVE | SME | 1, "OK"), (SVE, "EINVAL"), (SVE | SME | PMU, "EINVAL"), (1 << 20, "ENOENT")],
)
def test_init_again(kvm: Kvm, vcpu: Vcpu, again: int, expected: str) -> None:
    """The same features, POWER_OFF aside; a refused INIT leaves every register as it was."""
    before = still(vcpu)
    assert code(kvm, vcpu.fd, uapi.KVM_ARM_VCPU_INIT, vcpu_init(again)) == expected
    assert (still(vcpu) == before) == (expected != "OK")


def test_second_vcpu_has_the_features_of_the_first(kvm: Kvm, vcpu: Vcpu) -> None:
    second = vcpu.vm.create_vcpu(1).fd
    assert code(kvm, second, uapi.KVM_ARM_VCPU_INIT, vcpu_init(SVE)) == "EINVAL"
    assert code(kvm, second, uapi.KVM_ARM_VCPU_INIT, vcpu_init(SVE | SME | 1)) == "OK"


@pytest.mark.parametrize(("index", "expected"), [(0, "EEXIST"), (511, "OK"), (512, "EINVAL"), (2**32 - 1, "EINVAL")])
def test_vcpu_numbers(kvm: Kvm, vcpu: Vcpu, index: int, expected: str) -> None:
    assert code(kvm, vcpu.vm.fd, uapi.KVM_CREATE_VCPU, index) == expected


@pytest.mark.parametrize(
    ("kind", "expected"), [(0, "OK"), (40, "OK"), (32, "OK"), (31, "EINVAL"), (53, "EINVAL"), (1 << 32, "EINVAL")]
)
def test_vm_types(kvm: Kvm, kind: int, expected: str) -> None:
    """A VM's type is its IPA size and nothing else."""
    assert code(kvm, kvm.fd, uapi.KVM_CREATE_VM, kind) == expected


# --- FINALIZE and the vector lengths


@pytest.mark.parametrize("feature", [0, 3, 9, 10, -1, 1 << 30])
def test_finalize_takes_one_feature(kvm: Kvm, feature: int) -> None:
    vcpu = vcpu_of(kvm.create_vm(), final=False)
    arg = bytearray(struct.pack("=i", feature))
    assert code(kvm, vcpu.fd, uapi.KVM_ARM_VCPU_FINALIZE, arg) == "EINVAL"
    assert code(kvm, vcpu.fd, uapi.KVM_ARM_VCPU_FINALIZE, NOWHERE) == "EFAULT"
    vcpu.finalize()
    assert code(kvm, vcpu.fd, uapi.KVM_ARM_VCPU_FINALIZE, bytearray(b"\4\0\0\0")) == "EPERM"


def test_before_finalize(kvm: Kvm, edge: Edge) -> None:
    """No list, no run, no vector register, whatever the pointer; the list's n is untouched."""
    vcpu = vcpu_of(kvm.create_vm(), final=False)
    count = bytearray(struct.pack("=Q", 77))
    assert code(kvm, vcpu.fd, uapi.KVM_GET_REG_LIST, count) == "EPERM"
    assert code(kvm, vcpu.fd, uapi.KVM_GET_REG_LIST, NOWHERE) == "EPERM"
    assert struct.unpack("=Q", count) == (77,)
    assert code(kvm, vcpu.fd, uapi.KVM_RUN) == "EPERM"
    for request in (uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG):
        assert code(kvm, vcpu.fd, request, one_reg("z0", NOWHERE)) == "EPERM"
        assert code(kvm, vcpu.fd, request, one_reg("za.h[0]", NOWHERE)) == "EBUSY"


@pytest.mark.parametrize("name", VLS)
def test_vector_lengths(kvm: Kvm, name: str) -> None:
    """Bad pointers, sets that are not the host's cut off at the top, and any set after FINALIZE."""
    vcpu = vcpu_of(kvm.create_vm(), final=False)
    host = vcpu.read(name)
    assert code(kvm, vcpu.fd, uapi.KVM_SET_ONE_REG, one_reg(name, NOWHERE)) == "EFAULT"
    for wrong in (0, 1 << 16, host << 1, 1 << 511):
        with pytest.raises(KvmError, match="EINVAL"):
            vcpu[name] = wrong
    assert vcpu.read(name) == host
    vcpu.finalize()
    assert code(kvm, vcpu.fd, uapi.KVM_SET_ONE_REG, one_reg(name, NOWHERE)) == "EPERM"
    assert vcpu.read(name) == host


# --- the list


def test_list_too_small(kvm: Kvm, vcpu: Vcpu) -> None:
    """E2BIG returns how much room is needed and writes nothing else."""
    total = len(vcpu.reg_list())
    for room in (0, 1, total - 1):
        buffer = bytearray(struct.pack("=Q", room)) + b"\xee" * 8 * total
        assert code(kvm, vcpu.fd, uapi.KVM_GET_REG_LIST, buffer) == "E2BIG"
        assert buffer == struct.pack("=Q", total) + b"\xee" * 8 * total


def test_list_with_room_to_spare(kvm: Kvm, vcpu: Vcpu) -> None:
    """n becomes the number of registers; the memory after them is untouched, however large n was."""
    ids = vcpu.reg_list()
    for room in (len(ids), len(ids) + 1, 2**64 - 1):
        buffer = bytearray(struct.pack("=Q", room)) + b"\xee" * 8 * (len(ids) + 1)
        assert code(kvm, vcpu.fd, uapi.KVM_GET_REG_LIST, buffer) == "OK"
        assert buffer == struct.pack(f"={1 + len(ids)}Q", len(ids), *ids) + b"\xee" * 8


def test_list_into_unmapped_memory(kvm: Kvm, vcpu: Vcpu, edge: Edge) -> None:
    """A bad struct is EFAULT; a bad array too, unless n is too small, and n is written in any case."""
    total = len(vcpu.reg_list())
    assert code(kvm, vcpu.fd, uapi.KVM_GET_REG_LIST, NOWHERE) == "EFAULT"
    assert code(kvm, vcpu.fd, uapi.KVM_GET_REG_LIST, edge.put(struct.pack("=Q", 0))) == "E2BIG"
    assert code(kvm, vcpu.fd, uapi.KVM_GET_REG_LIST, edge.put(struct.pack("=Q", 2**63))) == "EFAULT"
    assert struct.unpack("=Q", edge.tail(8)) == (total,)
    assert code(kvm, vcpu.fd, uapi.KVM_GET_REG_LIST, edge.end - 4) == "EFAULT"


# --- registers


@pytest.mark.parametrize(
    ("name", "get", "set_"),
    [
        ("x0", "EFAULT", "EFAULT"),
        ("z0", "EFAULT", "EFAULT"),
        ("za.h[0]", "EFAULT", "EFAULT"),
        ("zt0", "EFAULT", "EFAULT"),
        ("svcr", "EFAULT", "EFAULT"),
        ("v0", "EINVAL", "EINVAL"),
        ("z0[1]", "ENOENT", "ENOENT"),
        ("za.h[0][1]", "ENOENT", "ENOENT"),
        ("za.h[128]", "EINVAL", "EINVAL"),
        ("za.h[255]", "EINVAL", "EINVAL"),
        ("sve_vls", "EFAULT", "EPERM"),
        ("smpri_el1", "ENOENT", "EFAULT"),
        ("s3_3_c15_c0_0", "ENOENT", "EFAULT"),
        ("ccsidr[14]", "ENOENT", "ENOENT"),
        (0x6030000010100000, "ENOENT", "ENOENT"),
        (0, "EINVAL", "EINVAL"),
        (2**64 - 1, "EINVAL", "EINVAL"),
    ],
)
def test_register_with_a_bad_pointer(kvm: Kvm, vcpu: Vcpu, name: str | int, get: str, set_: str) -> None:
    """Which error takes precedence: the pointer's, or the ID's."""
    arg = one_reg(name, NOWHERE)
    assert code(kvm, vcpu.fd, uapi.KVM_GET_ONE_REG, arg) == get
    assert code(kvm, vcpu.fd, uapi.KVM_SET_ONE_REG, arg) == set_


@pytest.mark.parametrize("request_name", ["KVM_GET_ONE_REG", "KVM_SET_ONE_REG"])
def test_register_struct_beyond_the_edge(kvm: Kvm, vcpu: Vcpu, edge: Edge, request_name: str) -> None:
    """The struct itself must be mapped as a whole."""
    for arg in (NOWHERE, edge.end - 8, edge.end, 2**64 - 8):
        assert code(kvm, vcpu.fd, vars(uapi)[request_name], arg) == "EFAULT"


def test_reserved_bits_of_svcr(kvm: Kvm, vcpu: Vcpu) -> None:
    """A refused write changes nothing: neither SM and ZA nor any register."""
    before = still(vcpu)
    for value in (4, 7, 1 << 63, 2**64 - 1):
        with pytest.raises(KvmError, match="EINVAL") as refused:
            vcpu["svcr"] = value
        assert refused.value.errno == errno.EINVAL
    assert still(vcpu) == before


# --- capabilities, slots, masks, signal masks, states


def test_capabilities(kvm: Kvm, vcpu: Vcpu) -> None:
    """The host's numbers, 0 for unknown capabilities, for any argument; features depend on what the host has."""
    for fd in (kvm.fd, vcpu.vm.fd):
        assert kvm.ioctl(fd, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_ARM_SVE) == 1
        assert kvm.ioctl(fd, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_ARM_SME) == 1
        assert kvm.ioctl(fd, uapi.KVM_CHECK_EXTENSION, uapi.KVM_CAP_ONE_REG) == 1
        for unknown in (9999, 2**31, 2**32 + uapi.KVM_CAP_ARM_SVE, 2**64 - 1):
            assert kvm.ioctl(fd, uapi.KVM_CHECK_EXTENSION, unknown) == 0


def test_preferred_target(kvm: Kvm, vcpu: Vcpu) -> None:
    init = bytearray(b"\xff" * 32)
    assert code(kvm, vcpu.vm.fd, uapi.KVM_ARM_PREFERRED_TARGET, init) == "OK"
    assert init == vcpu_init()
    assert code(kvm, vcpu.vm.fd, uapi.KVM_ARM_PREFERRED_TARGET, NOWHERE) == "EFAULT"


@pytest.mark.parametrize(
    ("slot", "expected"),
    [
        ((1, 0, 0x100000, 0x1000, 0), "OK"),
        ((0, 0, 0x80000, 0x10000, 0), "OK"),  # moves slot 0
        ((0, 1, 0x40000, 0x10000, 0), "OK"),  # logs it
        ((0, 2, 0x40000, 0x10000, 0), "EINVAL"),  # makes it read-only
        ((0, 0, 0x40000, 0x1000, 0), "EINVAL"),  # resizes it
        ((0, 0, 0x40000, 0x10000, 0x1000), "EINVAL"),  # backs it otherwise
        ((1, 0, 0x40000, 0x1000, 0), "EEXIST"),
        ((1, 0, 0x100001, 0x1000, 0), "EINVAL"),
        ((1, 1 << 30, 0x100000, 0x1000, 0), "EINVAL"),
        ((1 << 16, 0, 0x100000, 0x1000, 0), "EINVAL"),
        ((1, 0, 2**64 - 0x1000, 0x1000, 0), "EINVAL"),
        ((1, 0, 0, 0, 0), "EINVAL"),
        ((0, 0, 0, 0, 0), "OK"),  # removes slot 0
    ],
)
def test_memory_slots(kvm: Kvm, vcpu: Vcpu, slot: tuple[int, ...], expected: str) -> None:
    """Page-aligned, with known flags, not overlapping; an existing slot can only be moved and logged."""
    request = uapi.KVM_SET_USER_MEMORY_REGION
    assert code(kvm, vcpu.vm.fd, request, bytearray(struct.pack("=IIQQQ", 0, 0, 0x40000, 0x10000, 0))) == "OK"
    assert code(kvm, vcpu.vm.fd, request, bytearray(struct.pack("=IIQQQ", *slot))) == expected
    assert code(kvm, vcpu.vm.fd, request, NOWHERE) == "EFAULT"


def test_signal_masks_and_states(kvm: Kvm, vcpu: Vcpu) -> None:
    """Sizes, values and pointers are checked."""
    assert code(kvm, vcpu.fd, uapi.KVM_SET_SIGNAL_MASK, 0) == "OK"
    assert code(kvm, vcpu.fd, uapi.KVM_SET_SIGNAL_MASK, bytearray(struct.pack("=IQ", 8, 1))) == "OK"
    assert code(kvm, vcpu.fd, uapi.KVM_SET_SIGNAL_MASK, bytearray(struct.pack("=IQ", 4, 1))) == "EINVAL"
    assert code(kvm, vcpu.fd, uapi.KVM_SET_SIGNAL_MASK, NOWHERE) == "EFAULT"
    assert code(kvm, vcpu.fd, uapi.KVM_SET_MP_STATE, bytearray(struct.pack("=I", 99))) == "EINVAL"
    assert code(kvm, vcpu.fd, uapi.KVM_SET_MP_STATE, NOWHERE) == "EFAULT"
    state = bytearray(4)
    for value in (uapi.KVM_MP_STATE_STOPPED, uapi.KVM_MP_STATE_RUNNABLE):
        assert code(kvm, vcpu.fd, uapi.KVM_SET_MP_STATE, bytearray(struct.pack("=I", value))) == "OK"
        assert code(kvm, vcpu.fd, uapi.KVM_GET_MP_STATE, state) == "OK"
        assert struct.unpack("=I", state) == (value,)


def test_enable_cap_reads_its_whole_struct(kvm: Kvm, edge: Edge) -> None:
    """struct kvm_enable_cap has 104 bytes, padding included: a hole anywhere behind its first byte is EFAULT."""
    fd = kvm.create_vm().fd
    cap = uapi.ffi.new("struct kvm_enable_cap *", {"cap": uapi.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS})
    whole = bytes(uapi.ffi.buffer(cap))
    assert len(whole) == 104
    for mapped in (8, 40, len(whole) - 1):
        assert code(kvm, fd, uapi.KVM_ENABLE_CAP, edge.put(whole[:mapped])) == "EFAULT"
    assert code(kvm, fd, uapi.KVM_ENABLE_CAP, edge.put(whole)) == "OK"
