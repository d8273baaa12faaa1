# SPDX-License-Identifier: MIT
"""Ports: their memories end where they should, errors are negative errnos, and descriptors are closed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from kvmabi import uapi
from kvmabi.device import open_system
from kvmabi.device.memory import ProcessMemory
from kvmabi.events import EventLog
from kvmabi.profiles import load_host, load_kernel
from kvmabi.steps.grammar import EDGE_BYTES, UNMAPPED
from kvmabi.steps.libcport import LibcPort, RealMemory
from kvmabi.steps.modelport import ModelMemory, ModelPort
from kvmabi.steps.port import StepMemory

MEMORIES = [ModelMemory, RealMemory]


@pytest.fixture
def port() -> Iterator[ModelPort]:
    host = load_host("sme-demo")
    port = ModelPort(open_system(host, load_kernel(host.kernel), EventLog(kept=0)))
    yield port
    port.shut()


def copies(memory: StepMemory) -> ModelMemory | ProcessMemory:
    """How the device reads and writes a memory."""
    return memory if isinstance(memory, ModelMemory) else ProcessMemory(os.getpid(), 0)


@pytest.mark.parametrize("kind", MEMORIES)
def test_what_is_poked_is_followed_by_zeroes(kind: type) -> None:
    """A buffer holds what was poked last, and nothing of what it held before."""
    memory = kind()
    for place in (memory.argument, memory.payload, memory.array):
        memory.poke(place, b"\xff" * 100)
        memory.poke(place, b"abc")
        assert memory.peek(place, 5) == b"abc\0\0"
        assert copies(memory).read(place, 5) == b"abc\0\0"
        assert copies(memory).read(place + 1, 3) == b"bc\0"


@pytest.mark.parametrize("kind", MEMORIES)
def test_writes_go_where_they_should(kind: type) -> None:
    """To the beginning of a buffer, into the middle, and beyond what was poked."""
    memory = kind()
    memory.poke(memory.payload, b"abcdef")
    assert copies(memory).write(memory.payload, b"XY") == 2
    assert memory.peek(memory.payload, 7) == b"XYcdef\0"
    assert copies(memory).write(memory.payload + 3, b"Z") == 1
    assert copies(memory).write(memory.payload + 8, b"W") == 1
    assert memory.peek(memory.payload, 10) == b"XYcZef\0\0W\0"


@pytest.mark.parametrize("kind", MEMORIES)
@pytest.mark.parametrize("size", [0, 1, 8, 100, 5000, EDGE_BYTES])
def test_nothing_is_mapped_after_an_edge(kind: type, size: int) -> None:
    """Reads and writes stop there; the page after it cannot be reached at all."""
    memory = kind()
    addr = memory.edge(size)
    memory.poke(addr, b"\x11" * size)
    assert copies(memory).read(addr, size + 8) == b"\x11" * size
    assert copies(memory).write(addr, b"\x22" * (size + 8)) == size
    assert memory.peek(addr, size) == b"\x22" * size
    assert copies(memory).write(addr + size, b"\x33") == 0


@pytest.mark.parametrize("kind", MEMORIES)
def test_the_bad_address_is_bad(kind: type) -> None:
    """Nothing can be read or written there."""
    memory = copies(kind())
    assert memory.read(UNMAPPED, 8) == b""
    assert memory.write(UNMAPPED, b"x") == 0


def test_a_refusal_is_a_negative_number(port: ModelPort) -> None:
    """No exception, and the reason is stored for reports."""
    assert port.ioctl(port.kvm, uapi.KVM_GET_API_VERSION, 0) == uapi.KVM_API_VERSION
    assert port.ioctl(port.kvm, uapi.KVM_GET_API_VERSION, 1) == -errno.EINVAL
    assert "takes no argument" in port.reason
    assert port.ioctl(99, uapi.KVM_GET_API_VERSION, 0) == -errno.EBADF
    assert port.immediate_exit(port.kvm, True) == -errno.EBADF


def test_descriptors_are_numbered_and_closed(port: ModelPort) -> None:
    """A VM, a vCPU and a device get numbers of their own, the device's in its struct; a closed one is gone."""
    vm = port.ioctl(port.kvm, uapi.KVM_CREATE_VM, 0)
    vcpu = port.ioctl(vm, uapi.KVM_CREATE_VCPU, 0)
    device = uapi.ffi.new("struct kvm_create_device *", {"type": uapi.KVM_DEV_TYPE_ARM_VGIC_V3})
    port.memory.poke(port.memory.argument, bytes(uapi.ffi.buffer(device)))
    assert port.ioctl(vm, uapi.KVM_CREATE_DEVICE, port.memory.argument) == 0
    uapi.ffi.buffer(device)[:] = port.memory.peek(port.memory.argument, uapi.ffi.sizeof(device[0]))
    assert len({port.kvm, vm, vcpu, device.fd}) == 4
    assert port.immediate_exit(vcpu, True) == 0
    for fd in (vcpu, device.fd, vm):
        port.close(fd)
        assert port.ioctl(fd, uapi.KVM_CHECK_EXTENSION, 0) == -errno.EBADF


def test_a_real_descriptor_gives_its_errno() -> None:
    """What the C library's ioctl reports is the result; the descriptor is the port's, and closed with it."""
    fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    port = LibcPort(fd)
    assert port.ioctl(fd, uapi.KVM_GET_API_VERSION, 0) == -errno.ENOTTY
    assert port.reason == os.strerror(errno.ENOTTY)
    assert port.immediate_exit(fd, True) < 0
    port.shut()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
