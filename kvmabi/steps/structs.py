# SPDX-License-Identifier: MIT
"""The layouts of what steps pass to ioctls."""

from __future__ import annotations

from kvmabi.device.structs import layout

ONE_REG = layout("struct kvm_one_reg")
INIT = layout("struct kvm_vcpu_init")
INT = layout("int")
COUNT = layout("__u64")
CREATE_DEVICE = layout("struct kvm_create_device")
DEVICE_ATTR = layout("struct kvm_device_attr")
