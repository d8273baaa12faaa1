# SPDX-License-Identifier: MIT
"""The vCPU as its guest sees it: what a script reads and writes. Lengths are in bytes."""

from __future__ import annotations

from kvmabi import uapi
from kvmabi.guests import sysregs
from kvmabi.guests.board import Board, GuestError
from kvmabi.guests.guestmemory import GuestMemory
from kvmabi.guests.vectors import (
    NO_FFR,
    NO_SME2,
    NO_ZA,
    Vectors,
    bank_p,
    bank_v,
    bank_z,
    bank_za,
    fitting,
)
from kvmabi.model import core, state, timer
from kvmabi.model.vcpu import Vcpu

MASK = (1 << 64) - 1
REGS = state.CORE + int(uapi.ffi.offsetof("struct kvm_regs", "regs"))
SP, PC = (REGS + int(uapi.ffi.offsetof("struct user_pt_regs", name)) for name in ("sp", "pc"))
GENERAL = 31
VIRTUAL_TIMER, PHYSICAL_TIMER = 0, 1
"""Places in VmState.timer_irqs."""


class General:
    """``cpu.x[0]`` to ``cpu.x[30]``, as numbers."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu

    def __getitem__(self, n: int) -> int:
        return self._cpu.word(self._place(n))

    def __setitem__(self, n: int, value: int) -> None:
        self._cpu.set_word(self._place(n), value, f"x[{n}]")

    def __len__(self) -> int:
        return GENERAL

    def _place(self, n: int) -> int:
        if not isinstance(n, int) or not 0 <= n < GENERAL:
            raise GuestError(f"x[{n!r:.20}]: numbers are 0 to {GENERAL - 1}; the stack pointer is cpu.sp")
        return REGS + 8 * n


class Cpu:
    """What a script gets. ``vm`` and ``index`` are the numbers of the VM and the vCPU.

    ``x``, ``v``, ``z``, ``p`` and ``za`` are registers by number, ``memory`` is guest-physical memory. What this vCPU
    lacks raises GuestError.
    """

    def __init__(self, vcpu: Vcpu, board: Board) -> None:
        self._vcpu = vcpu
        self._board = board
        self.vm, self.index = vcpu.vm.number, vcpu.index
        self.vectors = vectors = Vectors(vcpu)
        self.memory = GuestMemory(board)
        self.x = General(self)
        self.v, self.z, self.p, self.za = bank_v(vectors), bank_z(vectors), bank_p(vectors), bank_za(vectors)

    # --- general registers

    @property
    def pc(self) -> int:
        """The program counter; every yield moves it on by 4."""
        return self.word(PC)

    @pc.setter
    def pc(self, value: int) -> None:
        self.set_word(PC, value, "pc")

    @property
    def sp(self) -> int:
        """The stack pointer that PSTATE selects: SP_EL1 at EL1h, else SP_EL0."""
        return self.word(self._sp_place())

    @sp.setter
    def sp(self, value: int) -> None:
        self.set_word(self._sp_place(), value, "sp")

    @property
    def pstate(self) -> int:
        """PSTATE as SPSR_EL1 has it."""
        return self.word(state.PSTATE)

    @pstate.setter
    def pstate(self, value: int) -> None:
        mode = self.pstate & core.MODE_MASK
        if value & core.MODE_MASK != mode:
            raise GuestError("a script stays at its exception level: pstate's mode cannot be changed")
        self.set_word(state.PSTATE, value, "pstate")

    # --- vectors and SME

    @property
    def vl(self) -> int:
        """The length of Z now, in bytes: the streaming length in streaming mode."""
        return self.vectors.vl_bytes

    @property
    def svl(self) -> int:
        """The streaming vector length in bytes, which is also the number of ZA's rows."""
        return self.vectors.svl_bytes

    @property
    def svcr(self) -> int:
        """SVCR: bit 0 is SM, bit 1 is ZA."""
        return self.mrs("svcr")

    def smstart(self, what: str = "") -> None:
        """SMSTART SM ("sm"), ZA ("za") or both; entering streaming mode zeroes Z, P and FFR and resets FPSR, ZA starts
        as zeroes."""
        self.vectors.start(what, on=True)

    def smstop(self, what: str = "") -> None:
        """SMSTOP SM, ZA or both; leaving streaming mode zeroes Z, P and FFR and resets FPSR."""
        self.vectors.start(what, on=False)

    @property
    def ffr(self) -> bytes:
        """FFR, as long as P."""
        return self.vectors.read(state.FFR, self._ffr_bytes())

    @ffr.setter
    def ffr(self, value: bytes) -> None:
        self.vectors.write(state.FFR, state.P_BYTES, fitting("ffr", value, self._ffr_bytes()))

    @property
    def zt0(self) -> bytes:
        """ZT0, 64 bytes."""
        self._check_zt0()
        return self.vectors.read(state.ZT0, state.ZT_BYTES)

    @zt0.setter
    def zt0(self, value: bytes) -> None:
        self._check_zt0()
        self.vectors.write(state.ZT0, state.ZT_BYTES, fitting("zt0", value, state.ZT_BYTES))

    # --- system registers and interrupts

    def mrs(self, name: str) -> int:
        """A system register's value, by its name in the Arm ARM."""
        return sysregs.read(self.vectors, name)

    def msr(self, name: str, value: int) -> None:
        """Write a system register."""
        sysregs.write(self.vectors, name, value)

    @property
    def interrupts(self) -> frozenset[int]:
        """The interrupts that are pending: lines that the VMM holds high, and due timers."""
        vm = self._vcpu.vm
        is_first = next(iter(vm.vcpus), None) == self.index
        return vm.lines.pending(self.index, is_first=is_first) | frozenset(self._due_timers())

    # --- for what runs the guest

    def word(self, place: int) -> int:
        """A number of 64 bits in the register file."""
        return int.from_bytes(self._vcpu.memory[place : place + 8], "little")

    def set_word(self, place: int, value: int, name: str) -> None:
        """Set such a number. Raises GuestError."""
        if not isinstance(value, int) or not -(1 << 63) <= value <= MASK:
            raise GuestError(f"{name} takes a number of 64 bits, not {value!r:.40}")
        self._vcpu.memory[place : place + 8] = (value & MASK).to_bytes(8, "little")
        self._vcpu.generation += 1

    def _sp_place(self) -> int:
        return state.BANKED_EL1[0] if self.pstate & core.MODE_MASK == uapi.PSR_MODE_EL1h else SP

    def _ffr_bytes(self) -> int:
        if not self._vcpu.mode.has_ffr:
            raise GuestError(NO_FFR)
        return self.vl // 8

    def _check_zt0(self) -> None:
        if "sme2" not in self._vcpu.mode.exposed or not self._vcpu.mode.sme:
            raise GuestError(NO_SME2)
        if not self._vcpu.mode.za:
            raise GuestError(NO_ZA)

    def _due_timers(self) -> list[int]:
        """The PPIs of timers that are enabled, not masked and due."""
        irqs = self._vcpu.vm.timer_irqs
        there = [(n, id) for n, id in TIMERS if n < len(irqs) and self._vcpu.row(id).get is None]
        return [irqs[n] for n, id in there if timer.fires(self._vcpu, id)]

    def __repr__(self) -> str:
        return f"<Cpu {self.index} of VM {self.vm}>"


TIMERS = tuple(zip((VIRTUAL_TIMER, PHYSICAL_TIMER), timer.COMPARES, strict=True))
