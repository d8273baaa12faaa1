# SPDX-License-Identifier: MIT
"""The GIC's CPU interface of a vCPU, as KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS shows it: the ICC registers.

Source: Documentation/virt/kvm/devices/arm-vgic-v3.rst, and the answers of Linux 6.1 to 7.3 in tests/golden.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from kvmabi.gicnames import CPU_REGISTERS, ENCODING_MASK
from kvmabi.model.refusal import Refusal

PRIORITY_BITS: Final = 5
"""How many bits priorities have: what a host's ICH_VTR_EL2 says, and profiles do not record."""
ID_BITS: Final = 1
"""Interrupt IDs of 24 bits."""
MANY_PRIORITIES, ALL_PRIORITIES = 6, 7
"""From how many bits of priority on there is a second active priorities register, and from how many on all four."""
WORD_MASK: Final = (1 << 32) - 1
PRIORITY_MASK, BINARY_POINT_MASK = 0xFF, 7
SRE_VALUE, SRE = 7, 1
EL2_FIXED: Final = {"icc_sre_el2": 0xF, "ich_vtr_el2": 0x9018_0003}
"""Registers of EL2 that take their own value only: access to them all, and what the virtual interface has."""
CBPR, EOI_MODE, PRIORITY_SHIFT, ID_SHIFT, FIELD_MASK = 1 << 0, 1 << 1, 8, 11, 7
SEIS, A3V = 1 << 14, 1 << 15
"""Fields of ICC_CTLR_EL1. The host supports all levels of affinity (A3V), and SEIs are not local (SEIS)."""

NO_REGISTER = Refusal(errno.ENOENT, "the GIC's CPU interface has no register of this encoding")
FEWER_PRIORITIES = Refusal(errno.EINVAL, "the vCPU's priorities have too few bits for this register")
NOT_SUPPORTED = Refusal(
    errno.EINVAL,
    "ICC_CTLR_EL1 has more priority or ID bits than the vCPU, or another SEIS or A3V than the host",
    "a vCPU keeps the smallest number of bits that was written",
)
FIXED = Refusal(errno.EINVAL, "the register takes its own value only")
NO_SRE = Refusal(errno.EINVAL, "ICC_SRE_EL1.SRE is 1")


class CpuInterface:
    """The registers of one vCPU's CPU interface, all 0 at first except for what the host decides.

    ``bpr0`` and ``bpr1`` are the binary points; ``active`` the active priorities of group 0 and of group 1; ``el2`` the
    registers of a vCPU with EL2 that were written, by name.
    """

    def __init__(self) -> None:
        self.pmr = self.bpr0 = self.bpr1 = 0
        self.mode = 0
        self.priority_bits, self.id_bits = PRIORITY_BITS, ID_BITS
        self.enabled = [0, 0]
        self.active = [[0, 0, 0, 0], [0, 0, 0, 0]]
        self.el2: dict[str, int] = {}

    def read(self, encoding: int, *, has_el2: bool = False) -> int:
        """The value of a register. Errors: ENOENT, EINVAL."""
        return _register(encoding, has_el2).get(self)

    def write(self, encoding: int, value: int, *, has_el2: bool = False) -> None:
        """Write a register. Errors: ENOENT, EINVAL."""
        _register(encoding, has_el2).set(self, value)

    def init(self) -> None:
        """KVM_ARM_VCPU_INIT, which resets the registers of EL2."""
        self.el2.clear()

    def pass_through_cpu(self) -> None:
        """The binary points come back from the CPU, which has smallest ones."""
        smallest = BINARY_POINT_MASK - PRIORITY_BITS
        self.bpr0, self.bpr1 = max(self.bpr0, smallest), max(self.bpr1, smallest + 1)

    def active_index(self, index: int) -> int:
        """The index of an active priorities register. Errors: EINVAL for one that the vCPU does not have."""
        bits = self.priority_bits
        if index > (3 if bits >= ALL_PRIORITIES else 1 if bits == MANY_PRIORITIES else 0):
            raise FEWER_PRIORITIES.error()
        return index


class Register(NamedTuple):
    """A register: how it is read and written, and whether only a vCPU with EL2 has it."""

    get: Callable[[CpuInterface], int]
    set: Callable[[CpuInterface, int], None]
    el2: bool = False


def has_register(attr: int, *, has_el2: bool) -> bool:
    """Whether a vCPU, with EL2 or without, has a register of the encoding that an attribute has."""
    register = REGISTERS.get(attr & ENCODING_MASK)
    return register is not None and (has_el2 or not register.el2)


def _register(encoding: int, has_el2: bool) -> Register:
    if not has_register(encoding, has_el2=has_el2):
        raise NO_REGISTER.error()
    return REGISTERS[encoding & ENCODING_MASK]


def _plain(name: str, mask: int) -> Register:
    return Register(lambda cpu: int(getattr(cpu, name)), lambda cpu, value: setattr(cpu, name, value & mask))


def _active(group: int, index: int) -> Register:
    def get(cpu: CpuInterface) -> int:
        return cpu.active[group][cpu.active_index(index)]

    def set(cpu: CpuInterface, value: int) -> None:
        cpu.active[group][cpu.active_index(index)] = value & WORD_MASK

    return Register(get, set)


def _enable(group: int) -> Register:
    def set(cpu: CpuInterface, value: int) -> None:
        cpu.enabled[group] = value & 1

    return Register(lambda cpu: cpu.enabled[group], set)


def _of_el2(name: str, index: int = 0) -> Register:
    """A register of EL2; ``index`` is that of an active priorities register."""

    def get(cpu: CpuInterface) -> int:
        cpu.active_index(index)
        return cpu.el2.get(name, EL2_FIXED.get(name, 0))

    def set(cpu: CpuInterface, value: int) -> None:
        cpu.active_index(index)
        if value != EL2_FIXED.get(name, value):
            raise FIXED.error()
        cpu.el2[name] = value

    return Register(get, set, el2=True)


def _get_bpr1(cpu: CpuInterface) -> int:
    """With a common binary point (CBPR) that of group 0 holds, which is one less."""
    return min(cpu.bpr0 + 1, BINARY_POINT_MASK) if cpu.mode & CBPR else cpu.bpr1


def _set_bpr1(cpu: CpuInterface, value: int) -> None:
    if not cpu.mode & CBPR:
        cpu.bpr1 = value & BINARY_POINT_MASK


def _get_ctlr(cpu: CpuInterface) -> int:
    return cpu.mode | (cpu.priority_bits - 1) << PRIORITY_SHIFT | cpu.id_bits << ID_SHIFT | A3V


def _set_ctlr(cpu: CpuInterface, value: int) -> None:
    """What is smaller than before stays, even if a later check fails."""
    priority_bits, id_bits = (value >> PRIORITY_SHIFT & FIELD_MASK) + 1, value >> ID_SHIFT & FIELD_MASK
    if priority_bits > cpu.priority_bits:
        raise NOT_SUPPORTED.error()
    cpu.priority_bits = priority_bits
    if id_bits > cpu.id_bits:
        raise NOT_SUPPORTED.error()
    cpu.id_bits = id_bits
    if value & (SEIS | A3V) != A3V:
        raise NOT_SUPPORTED.error()
    cpu.mode = value & (CBPR | EOI_MODE)


def _set_sre(_cpu: CpuInterface, value: int) -> None:
    if not value & SRE:
        raise NO_SRE.error()


REGISTERS: Final[Mapping[int, Register]] = {
    CPU_REGISTERS[name]: register
    for name, register in {
        "icc_pmr_el1": _plain("pmr", PRIORITY_MASK),
        "icc_bpr0_el1": _plain("bpr0", BINARY_POINT_MASK),
        **{f"icc_ap{group}r{index}_el1": _active(group, index) for group in range(2) for index in range(4)},
        "icc_bpr1_el1": Register(_get_bpr1, _set_bpr1),
        "icc_ctlr_el1": Register(_get_ctlr, _set_ctlr),
        "icc_sre_el1": Register(lambda _cpu: SRE_VALUE, _set_sre),
        "icc_igrpen0_el1": _enable(0),
        "icc_igrpen1_el1": _enable(1),
        **{name: _of_el2(name) for name in ("icc_sre_el2", "ich_hcr_el2", "ich_vtr_el2", "ich_vmcr_el2")},
        **{f"ich_ap{group}r{n}_el2": _of_el2(f"ich_ap{group}r{n}_el2", n) for group in range(2) for n in range(4)},
        **{f"ich_lr{n}_el2": _of_el2(f"ich_lr{n}_el2") for n in range(16)},
    }.items()
}
"""By encoding."""
