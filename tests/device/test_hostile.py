# SPDX-License-Identifier: MIT
"""Hostile callers: for any argument the result is an errno, and nothing else changes."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import NOWHERE, PAGE, Edge
from vmms import RUNNING, guest

import kvmabi
from kvmabi import Kvm, KvmError, UsageError, regid, uapi
from kvmabi.kvm import Vcpu

ERRNOS = {"EINVAL", "ENXIO", "ENOENT", "EFAULT", "EPERM", "EBUSY", "ENOEXEC", "E2BIG", "EEXIST", "ENODEV", "EINTR"}
KNOWN = [value for name, value in vars(uapi).items() if name.startswith("KVM_") and isinstance(value, int)]
STILL_RUNNING = frozenset(map(regid.parse, RUNNING))
CREATING = {uapi.KVM_CREATE_VM, uapi.KVM_CREATE_VCPU}
CHANGING = {uapi.KVM_ARM_VCPU_INIT, uapi.KVM_SET_ONE_REG, uapi.KVM_RUN}


@cache
def shared() -> tuple[Kvm, Vcpu, Edge]:
    """One guest for all examples; hypothesis runs too many for one each."""
    kvm = kvmabi.open()
    return kvm, guest(kvm.create_vm(), 3), Edge()


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    shared()[0].close()
    shared.cache_clear()


def state(vcpu: Vcpu) -> dict[int, bytes]:
    """The visible registers that are not free-running."""
    values = vcpu.kvm.vcpu_model(vcpu.fd).values()
    return {id: value for id, value in values.items() if id not in STILL_RUNNING}


def answer(kvm: Kvm, fd: int, request: int, arg: Any) -> str:
    """The errno's name, OK for success; any other exception fails the test."""
    try:
        kvm.ioctl(fd, request, arg)
    except KvmError as error:
        return error.name if error.reason else "no reason"
    return "OK"


REQUESTS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KNOWN),
    st.builds(lambda number, bit: number ^ 1 << bit, st.sampled_from(KNOWN), st.integers(0, 31)),
    st.integers(-(2**31), -1),
)
ARGUMENTS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.integers(-(2**63), -1),
    st.sampled_from([0, NOWHERE, 2**63, 2**64 - 1]),
    st.binary(min_size=64, max_size=8192).map(bytearray),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(request=REQUESTS, arg=ARGUMENTS, kind=st.sampled_from(["system", "vm", "vcpu"]))
def test_any_ioctl_with_any_argument(request: int, arg: Any, kind: str) -> None:
    """Unknown ioctls, those of other files, bad addresses and garbage: an errno, and the registers stay as they are."""
    kvm, vcpu, _ = shared()
    number = request & 0xFFFFFFFF
    if number in CREATING or (number == uapi.KVM_RUN and not isinstance(arg, bytearray)) or arg == 0:
        return
    fd = {"system": kvm.fd, "vm": vcpu.vm.fd, "vcpu": vcpu.fd}[kind]
    before = state(vcpu)
    got = answer(kvm, fd, request, arg)
    assert got in {*ERRNOS, "OK"}
    if number not in CHANGING or got != "OK":
        assert state(vcpu) == before


@cache
def listed() -> list[int]:
    return shared()[1].reg_list()


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_id_with_bits_flipped(data: st.DataObject) -> None:
    """IDs that name no register: get and set refuse them with the same family of errnos and change nothing."""
    kvm, vcpu, _ = shared()
    id = data.draw(st.sampled_from(listed()))
    for bit in data.draw(st.sets(st.integers(0, 63), min_size=1, max_size=3)):
        id ^= 1 << bit
    payload = uapi.ffi.new("char[]", 1 << 15)
    arg = uapi.ffi.new("struct kvm_one_reg *", {"id": id, "addr": int(uapi.ffi.cast("uintptr_t", payload))})
    before = state(vcpu)
    get = answer(kvm, vcpu.fd, uapi.KVM_GET_ONE_REG, arg)
    assert state(vcpu) == before
    if id in before or id in STILL_RUNNING:
        assert get == "OK"
        return
    assert get in {"EINVAL", "ENOENT"}
    assert answer(kvm, vcpu.fd, uapi.KVM_SET_ONE_REG, arg) in {"EINVAL", "ENOENT"}
    assert state(vcpu) == before


def test_every_single_bit_of_some_ids() -> None:
    """Each of the 64 bits of one ID of every family."""
    _, vcpu, _ = shared()
    payload = bytes(1 << 15)
    visible = set(listed())
    for name in ("x0", "fpsr", "z3", "p3", "ffr", "za.h[5]", "zt0", "sme_vls", "psci_version", "svcr", "ccsidr[0]"):
        for bit in range(64):
            id = regid.parse(name) ^ 1 << bit
            if id in visible:
                continue
            with pytest.raises(KvmError, match=r"EINVAL|ENOENT"):
                vcpu[id] = payload[: 1 << (id >> 52 & 15)]


@pytest.mark.parametrize(("name", "valid"), [("z1", 128), ("p1", 16), ("ffr", 16), ("za.h[7]", 128), ("zt0", 64)])
def test_vector_write_cut_by_the_end_of_memory(name: str, valid: int) -> None:
    """What could be read is stored, the rest of the register is zero, and the answer is EFAULT."""
    kvm, vcpu, edge = shared()
    for mapped in (1, valid // 2, valid - 1):
        vcpu[name] = b"\xee" * valid + bytes(len(vcpu[name]) - valid)
        others = {id: value for id, value in state(vcpu).items() if id != regid.parse(name)}
        address = edge.put(bytes(range(1, mapped + 1)))
        arg = struct.pack("=QQ", regid.parse(name), address)
        assert answer(kvm, vcpu.fd, uapi.KVM_SET_ONE_REG, bytearray(arg)) == "EFAULT"
        assert vcpu[name] == bytes(range(1, mapped + 1)).ljust(len(vcpu[name]), b"\0")
        assert {id: value for id, value in state(vcpu).items() if id != regid.parse(name)} == others


@pytest.mark.parametrize(("name", "valid"), [("z1", 128), ("p1", 16), ("za.h[7]", 128)])
def test_vector_write_needs_only_its_length_mapped(name: str, valid: int) -> None:
    """What lies beyond the vector length is not read."""
    kvm, vcpu, edge = shared()
    arg = struct.pack("=QQ", regid.parse(name), edge.put(b"\x77" * valid))
    assert answer(kvm, vcpu.fd, uapi.KVM_SET_ONE_REG, bytearray(arg)) == "OK"
    assert vcpu[name] == (b"\x77" * valid).ljust(len(vcpu[name]), b"\0")


@pytest.mark.parametrize("name", ["x1", "fpsr", "svcr", "tpidr2_el0", "psci_version", "ccsidr[0]"])
def test_plain_write_is_whole_or_not_at_all(name: str) -> None:
    """Core, system, firmware and demultiplexed registers do not change if the payload ends too early."""
    kvm, vcpu, edge = shared()
    before = state(vcpu)
    arg = struct.pack("=QQ", regid.parse(name), edge.put(b"\0\0\0"))
    assert answer(kvm, vcpu.fd, uapi.KVM_SET_ONE_REG, bytearray(arg)) == "EFAULT"
    assert state(vcpu) == before


@pytest.mark.parametrize("name", ["x1", "z1", "za.h[7]", "svcr"])
def test_read_into_memory_that_ends(name: str) -> None:
    """EFAULT even if only the padding does not fit; the register is unchanged."""
    kvm, vcpu, edge = shared()
    before = state(vcpu)
    arg = struct.pack("=QQ", regid.parse(name), edge.end - len(vcpu[name]) + 1)
    assert answer(kvm, vcpu.fd, uapi.KVM_GET_ONE_REG, bytearray(arg)) == "EFAULT"
    assert state(vcpu) == before


@pytest.mark.parametrize(
    "arg",
    [
        None,
        1.5,
        "text",
        [1, 2],
        memoryview(b"read only"),
        uapi.ffi.new("struct kvm_one_reg *")[0],
        memoryview(bytearray(64))[::2],
    ],
    ids=lambda arg: type(arg).__name__,
)
def test_unsupported_argument(arg: Any) -> None:
    """Neither number, pointer nor writable buffer: reported as misuse of kvmabi."""
    kvm, vcpu, _ = shared()
    with pytest.raises(UsageError, match="takes a number"):
        kvm.ioctl(vcpu.fd, uapi.KVM_GET_ONE_REG, arg)


@pytest.mark.parametrize("fd", [-1, 0, 10**6, 2**40, -(2**70)])
def test_descriptor_of_something_else(fd: int) -> None:
    kvm, _, _ = shared()
    with pytest.raises(KvmError, match="EBADF"):
        kvm.ioctl(fd, uapi.KVM_GET_API_VERSION)


def test_random_calls_in_a_row_keep_the_log_consistent() -> None:
    """A thousand random ioctls on one vCPU: each leaves its event, numbered without gaps."""
    chance = random.Random(7)
    with kvmabi.open() as kvm:
        vcpu = guest(kvm.create_vm(), 3)
        buffer = bytearray(PAGE)
        for _ in range(1000):
            buffer[:32] = chance.randbytes(32)
            request = chance.choice([uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG, uapi.KVM_ARM_VCPU_INIT, 0xAE00])
            before = kvm.log.count
            got = answer(kvm, vcpu.fd, request, buffer)
            event = kvm.log.events[-1]
            assert (event.number, kvm.log.count) == (before + 1, before + 1)
            assert (event.errno == 0) == (got == "OK")
