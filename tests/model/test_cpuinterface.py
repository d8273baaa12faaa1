# SPDX-License-Identifier: MIT
"""The GIC's CPU interface where a host has more than the recorded ones."""

from __future__ import annotations

import pytest

from kvmabi.errors import KvmError
from kvmabi.gicnames import CPU_REGISTERS
from kvmabi.model.cpuinterface import CpuInterface


@pytest.mark.parametrize(("priority_bits", "registers"), [(4, 1), (5, 1), (6, 2), (7, 4), (8, 4)])
def test_more_priorities_have_more_registers(priority_bits: int, registers: int) -> None:
    """The number of active priorities registers of both groups follows the bits of a priority."""
    cpu = CpuInterface()
    cpu.priority_bits = priority_bits
    for group in range(2):
        for index in range(4):
            encoding = CPU_REGISTERS[f"icc_ap{group}r{index}_el1"]
            if index < registers:
                cpu.write(encoding, 1 << 32 | 5)
                assert cpu.read(encoding) == 5
                continue
            with pytest.raises(KvmError, match="too few bits"):
                cpu.read(encoding)


def test_a_run_raises_binary_points_only() -> None:
    """The CPU's smallest binary points replace smaller ones; larger ones and other registers stay."""
    cpu = CpuInterface()
    cpu.pmr = 0xFF
    cpu.pass_through_cpu()
    assert (cpu.bpr0, cpu.bpr1, cpu.pmr) == (2, 3, 0xFF)
    cpu.bpr0, cpu.bpr1 = 6, 7
    cpu.pass_through_cpu()
    assert (cpu.bpr0, cpu.bpr1) == (6, 7)


def test_registers_of_el2_need_el2_and_an_init_resets_them() -> None:
    """They keep all 64 bits, except for those with a fixed value; without EL2 they do not exist."""
    cpu = CpuInterface()
    hcr, vtr, second = (CPU_REGISTERS[f"ich_{name}_el2"] for name in ("hcr", "vtr", "ap0r1"))
    with pytest.raises(KvmError, match="ENOENT"):
        cpu.read(hcr)
    cpu.write(hcr, (1 << 64) - 1, has_el2=True)
    assert cpu.read(hcr, has_el2=True) == (1 << 64) - 1
    with pytest.raises(KvmError, match="its own value only"):
        cpu.write(vtr, 0, has_el2=True)
    with pytest.raises(KvmError, match="too few bits"):
        cpu.read(second, has_el2=True)
    cpu.init()
    assert cpu.read(hcr, has_el2=True) == 0
