# SPDX-License-Identifier: MIT
"""The file of an ITS, with its attributes: address, registers, tables and reset."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.device import attr
from kvmabi.device.attr import Attribute, UserValue, absent
from kvmabi.device.vgic import LONG_BYTES, ControlFile
from kvmabi.errors import KvmError
from kvmabi.gicnames import ITS as ITS_REGISTERS
from kvmabi.gicnames import places
from kvmabi.model.its import check_register
from kvmabi.model.vgic import UNSET_ADDRESS

if TYPE_CHECKING:
    from kvmabi.device.vm import VmFile


class ItsFile(ControlFile):
    """An ITS."""

    def __init__(self, vm: VmFile) -> None:
        super().__init__(vm)
        self.its = vm.vm.create_its()
        self.attributes = ITS_ANY_CONTROL if vm.vm.system.kernel.switches.its_takes_any_control else ITS

    def registers(self) -> Iterable[tuple[int, int]]:
        """See ControlFile.registers."""
        return ((ITS_REGISTERS, offset) for offset, place in places(ITS_REGISTERS).items() if not place.high)


def _address(file: ItsFile, _value: UserValue) -> int:
    return UNSET_ADDRESS if file.its.base is None else file.its.base


def _no_address(*_: object) -> int:
    raise KvmError(errno.ENODEV, "an ITS has one address, KVM_VGIC_ITS_ADDR_TYPE")


def _has_register(_file: ItsFile, number: int) -> bool:
    check_register(number)
    return True


def _write_register(file: ItsFile, value: UserValue) -> None:
    file.its.write(value.attr, value.take(), file.memory(value))


def _nothing_to_do(*_: object) -> None:
    """KVM_DEV_ARM_VGIC_CTRL_INIT: an ITS is ready when it was created."""


ITS: dict[tuple[int, int | None], Attribute] = {
    (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_ITS_ADDR_TYPE): Attribute(
        LONG_BYTES, _address, lambda file, value: file.its.set_base(value.take())
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, attr.ANY): Attribute(LONG_BYTES, _no_address, _no_address, present=absent),
    (uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS, attr.ANY): Attribute(
        LONG_BYTES, lambda file, value: file.its.read(value.attr), _write_register, present=_has_register
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT): Attribute(0, set=_nothing_to_do),
    (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_ITS_SAVE_TABLES): Attribute(
        0, set=lambda file, value: file.its.save(file.memory(value))
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_ITS_RESTORE_TABLES): Attribute(
        0, set=lambda file, value: file.its.restore(file.memory(value))
    ),
    (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_ITS_CTRL_RESET): Attribute(
        0, set=lambda file, _value: file.its.reset()
    ),
}
ITS_ANY_CONTROL = ITS | {(uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, attr.ANY): Attribute(0, set=_nothing_to_do, present=absent)}
