# SPDX-License-Identifier: MIT
"""Layouts from the headers: size, order and place of every field are the compiler's."""

from __future__ import annotations

import pytest

from kvmabi.device.structs import layout
from kvmabi.uapi import ffi

STRUCTS = [
    *("kvm_one_reg", "kvm_vcpu_init", "kvm_reg_list", "kvm_create_device", "kvm_device_attr", "kvm_enable_cap"),
    *("reg_mask_range", "kvm_userspace_memory_region", "kvm_vcpu_events", "kvm_mp_state", "kvm_signal_mask"),
    *("kvm_arm_device_addr", "kvm_run"),
]


@pytest.mark.parametrize("name", STRUCTS)
def test_a_layout_is_as_large_as_the_struct(name: str) -> None:
    """Padding counts, a flexible array does not."""
    assert layout(f"struct {name}").size == ffi.sizeof(f"struct {name}")


def test_fields_are_where_the_compiler_puts_them() -> None:
    """What a layout packs, cffi reads by the fields' names, arrays element by element."""
    init = ffi.new("struct kvm_vcpu_init *")
    ffi.buffer(init)[:] = layout("struct kvm_vcpu_init").pack(5, 1, 2, 3, 4, 5, 6, 7)
    assert (init.target, list(init.features)) == (5, [1, 2, 3, 4, 5, 6, 7])
    attr = ffi.new("struct kvm_device_attr *")
    ffi.buffer(attr)[:] = layout("struct kvm_device_attr").pack(1, 2, 3, 4)
    assert (attr.flags, attr.group, attr.attr, attr.addr) == (1, 2, 3, 4)


def test_an_array_of_bytes_is_one_value() -> None:
    """The 64 bytes of padding in struct kvm_enable_cap are one bytes object after the four arguments."""
    values = layout("struct kvm_enable_cap").unpack(bytes(range(104)))
    assert len(values) == 7
    assert values[-1] == bytes(range(40, 104))


def test_an_anonymous_union_is_one_value() -> None:
    """The exit's details in struct kvm_run are 256 bytes; the fields after them are at their offsets."""
    run = ffi.new("struct kvm_run *")
    run.exit_reason, run.kvm_valid_regs = 17, 23
    run.mmio.phys_addr = 0x1234
    values = layout("struct kvm_run").unpack(bytes(ffi.buffer(run)))
    assert [value for value in values if value == 17] == [17]
    (details,) = (value for value in values if isinstance(value, bytes) and len(value) == 256)
    assert details[:2] == b"\x34\x12"
    assert values[values.index(details) + 1] == 23


def test_numbers_are_signed_as_declared() -> None:
    """__s32 and int are signed, __u64 is not."""
    assert layout("int").unpack(b"\xff" * 4) == (-1,)
    assert layout("__u64").unpack(b"\xff" * 8) == ((1 << 64) - 1,)


def test_a_layout_is_made_once() -> None:
    """Asking again costs a look-up."""
    assert layout("struct kvm_one_reg") is layout("struct kvm_one_reg")


def test_an_unknown_struct_is_an_error() -> None:
    """A mistyped name does not pass as an empty struct."""
    with pytest.raises(ffi.error):
        layout("struct kvm_two_regs")
