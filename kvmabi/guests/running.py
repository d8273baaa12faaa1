# SPDX-License-Identifier: MIT
"""A script that runs on a vCPU: from one KVM_RUN to the next it goes on to the next exit, and no further.

What a script yields is carried out here, as the kernel does after the instruction has left the guest. KVM_RUN returns
with an exit, or waits: then the caller comes back after a while (``Exit.again_ms``) and the guest goes on, if it can.
So one vCPU's guest never holds up another, and an interrupt or a CPU_ON needs no wake-up.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from kvmabi import uapi
from kvmabi.errors import GUEST_FAILED, UsageError
from kvmabi.guests import exits, hypercalls, psci
from kvmabi.guests.actions import Brk, Hypercall, Mmio, Preempt, SoftirqNeon, Wfe, Wfi
from kvmabi.guests.board import Board, GuestError, MemoryFault
from kvmabi.guests.bound import NeverYields, bounded
from kvmabi.guests.cpu import GENERAL, PC, Cpu
from kvmabi.guests.ownership import Ownership
from kvmabi.guests.psci import Done
from kvmabi.guests.scripts import Script, Steps, described
from kvmabi.model.run import Exit
from kvmabi.model.vcpu import Vcpu

MOST_TURNS = 1000
"""How many instructions that KVM itself answers a guest has before others run."""
INSTRUCTION_BYTES = 4
MASK = (1 << 64) - 1
SIZES = frozenset({1, 2, 4, 8})
BRK_MASK = (1 << 16) - 1
VGIC_FRAME = "a guest's access to the registers of the vGIC: a load returns 0"
STOPPED, SUSPENDED = int(uapi.KVM_MP_STATE_STOPPED), int(uapi.KVM_MP_STATE_SUSPENDED)


class RunPage(Protocol):
    """The vCPU's struct kvm_run, as far as a guest reads what the VMM wrote there."""

    def number(self, field: str) -> int:
        """A field's value."""

    def raw(self, field: str, size_bytes: int) -> bytes:
        """The first bytes of a field."""


class Running:
    """The guest of one vCPU. ``script`` None: it idles, and can be powered on and off."""

    def __init__(self, vcpu: Vcpu, board: Board, page: RunPage, script: Script | None) -> None:
        self.script = script
        self.error: BaseException | None = None
        self._vcpu, self._board, self._page = vcpu, board, page
        self._cpu = Cpu(vcpu, board)
        self._steps: Steps | None = None
        self._protocol: Ownership | None = None
        self._ended = script is None
        self._faulted = False
        self._value: Any = None
        self._mmio: Mmio | None = None
        self._breakpoint: tuple[int, int] | None = None
        self._thrown: GuestError | None = None
        self._again: Any = None
        self._waits = False
        self._call = False

    # --- what KVM_RUN does

    def complete(self) -> None:
        """See model.run.Guest: a load's value comes from kvm_run.mmio.data, and the PC goes on."""
        self._begin_anew()
        access = self._mmio
        if access is None or self._page.number("exit_reason") != uapi.KVM_EXIT_MMIO:
            return
        self._mmio = None
        data = None
        if access.data is None:
            data = int.from_bytes(self._page.raw("mmio.data", access.size), "little")
        self._loaded(access, data)

    def enter(self) -> Exit:
        """See model.run.Guest."""
        left = self._before_entry()
        if left is not None:
            return left
        self._load()
        try:
            return self._go_on()
        finally:
            if self._protocol is not None:
                self._protocol.leave()

    def _load(self) -> None:
        """Load the guest's FP registers as the kernel of a guest OnKernel does."""
        if self.script is None or self.script.variant is None or self.error is not None:
            return
        try:
            if self._protocol is None:
                self._protocol = self._cpu.vectors.access = Ownership(self._vcpu, self.script.variant)
            self._protocol.enter()
        except UsageError as error:
            self._fail(error)

    def reset(self) -> None:
        """INIT: the script starts anew at the next entry."""
        self._vcpu.is_new = False
        self._forget()

    def interrupt(self) -> None:
        """A signal ends KVM_RUN: WFI is over, as in the kernel, although no interrupt is pending."""
        if self._waits:
            self._waited()

    def close(self) -> None:
        """The vCPU was closed: end the script."""
        self._forget()

    def _forget(self) -> None:
        steps, self._steps = self._steps, None
        self._protocol = self._cpu.vectors.access = None
        self._mmio = self._value = self.error = self._thrown = self._again = self._breakpoint = None
        self._waits = self._call = self._faulted = False
        self._ended = self.script is None
        if steps is not None:
            with suppress(Exception, MemoryFault, NeverYields), bounded(steps):
                steps.close()

    def _go_on(self) -> Exit:
        """Run until there is an exit, or something to wait for."""
        for _ in range(MOST_TURNS):
            left = self._before_entry()
            if left is not None:
                return left
            action = self._next()
            if self._faulted:
                return exits.FAULTED
            if self.error is not None:
                return exits.FAILED
            if self._ended:
                continue
            try:
                left = self._carry_out(action)
            except Exception as error:
                self._thrown = error if isinstance(error, GuestError) else GuestError(described(error))
                continue
            except MemoryFault:
                self._again = action
                return exits.FAULTED
            if left is not None:
                return left
        return exits.LETTING_OTHERS_RUN

    def _before_entry(self) -> Exit | None:
        """What keeps the vCPU from entering the guest."""
        vcpu = self._vcpu
        if vcpu.mp_state == STOPPED:
            return exits.WAITING
        self._begin_anew()
        if vcpu.mp_state == SUSPENDED:
            wakes = self._cpu.interrupts
            return exits.system_event(int(uapi.KVM_SYSTEM_EVENT_WAKEUP)) if wakes else exits.WAITING
        if self.error is not None:
            return exits.FAILED
        if self._faulted:
            return exits.FAULTED
        if self._breakpoint is not None:
            pc, imm = self._breakpoint
            if pc == self._cpu.pc and self._stops_at_breakpoints:
                return exits.breakpoint_(imm)
            self._breakpoint = None
            if pc == self._cpu.pc:  # it is no longer debugged
                self._done(None)
        if self._mmio is not None:  # the VMM has not completed it: the instruction runs again
            return exits.mmio(self._mmio)
        if self._waits:
            if not self._cpu.interrupts:
                return exits.WAITING
            self._waited()
        return exits.ENDED if self._ended else None

    def _begin_anew(self) -> None:
        """After another vCPU's CPU_ON."""
        if self._vcpu.is_new:
            self.reset()

    def _waited(self) -> None:
        """WFI, or a call that is treated as such, is over."""
        self._waits = False
        if self._call:
            self._answered(Done(psci.SUCCESS))
        else:
            self._done(self._cpu.interrupts)

    # --- the script

    def _next(self) -> Any:
        """What the script yields next; an access that faulted is done again, as the instruction is."""
        assert self.script is not None
        again, self._again = self._again, None
        if again is not None:
            return again
        value, self._value = self._value, None
        thrown, self._thrown = self._thrown, None
        if value is FROM_X0:
            value = self._cpu.x[0]
        steps = self._steps
        if steps is None:
            steps = self._steps = self.script.function(self._cpu)
        try:
            with bounded(steps):
                return steps.send(value) if thrown is None else steps.throw(thrown)
        except StopIteration:
            self._ended = True
        except MemoryFault:
            self._faulted = True
        except (Exception, NeverYields, SystemExit, GeneratorExit) as error:
            self._fail(error)
        return None

    def _fail(self, error: BaseException) -> None:
        assert self.script is not None
        self.error = error
        line = self.script.failed(self._cpu.vm, self._cpu.index, error)
        self._vcpu.warn(f"{GUEST_FAILED}{line}")

    # --- what it yields

    def _carry_out(self, action: Any) -> Exit | None:
        """Do what the script asks for; returns the exit, if it is one. Raises GuestError."""
        do = DO.get(type(action))
        if do is None:
            name = type(action).__name__
            raise GuestError(f"a guest yields Mmio, Hypercall, Wfi, Wfe, Brk or nothing, not an object of {name}")
        return do(self, action)

    def _done(self, value: Any) -> None:
        """The instruction is over: the yield returns ``value``, and the PC is behind it."""
        self._value = value
        self._cpu.set_word(PC, self._cpu.pc + INSTRUCTION_BYTES & MASK, "pc")

    def _nothing(self, _action: None) -> Exit:
        return exits.LETTING_OTHERS_RUN

    def _access(self, access: Mmio) -> Exit | None:
        addr, size, data = _checked(access)
        memory, board = self._cpu.memory, self._board
        if memory.is_memory(addr, size, write=data is not None):
            if data is None:
                self._loaded(access, int.from_bytes(memory.read(addr, size), "little"))
            else:
                memory.write(addr, data.to_bytes(size, "little"))
                self._done(None)
            return None
        if board.is_frame(addr):
            board.unmodelled(VGIC_FRAME)
            self._loaded(access, 0 if data is None else None)
            return None
        if data is not None and board.signals(addr, size, data):
            self._done(None)
            return None
        self._mmio = access
        return exits.mmio(self._mmio)

    def _loaded(self, access: Mmio, value: int | None) -> None:
        """An access is complete; ``value`` is what was loaded."""
        if value is not None and access.register is not None:
            self._cpu.x[access.register] = value
        self._done(value)

    def _hypercall(self, call: Hypercall) -> Exit | None:
        """HVC leaves the PC behind it, and so does an SMC when KVM has looked at it."""
        hypercalls.check(call)
        for n, value in enumerate((call.nr & psci.WORD, *call.args)):
            self._cpu.x[n] = value
        x = self._cpu.x
        done = hypercalls.answer(self._vcpu, self._board, call, (x[1], x[2], x[3]))
        if done.waits:
            self._waits = self._call = True
            return None
        return self._answered(done)

    def _answered(self, done: Done) -> Exit | None:
        """A call is over: its results are in X0 to X3, unless the VMM answers."""
        self._call = False
        if done.x0 is not None:
            for n, value in enumerate((done.x0 & MASK, 0, 0, 0)):
                self._cpu.x[n] = value
        self._done(FROM_X0)
        return done.exit

    def _wait_for_interrupt(self, _action: Wfi) -> Exit | None:
        self._waits = True
        return None

    def _wait_for_event(self, _action: Wfe) -> Exit | None:
        self._done(None)
        return exits.LETTING_OTHERS_RUN

    def _break(self, action: Brk) -> Exit | None:
        if not isinstance(action.imm, int) or action.imm & ~BRK_MASK:
            raise GuestError(f"BRK has a number of 16 bits, not {action.imm!r:.40}")
        if not self._stops_at_breakpoints:
            self._done(None)
            return None
        self._breakpoint = self._cpu.pc, action.imm  # until the VMM moves the PC on
        return exits.breakpoint_(action.imm)

    @property
    def _stops_at_breakpoints(self) -> bool:
        return bool(self._vcpu.guest_debug & uapi.KVM_GUESTDBG_USE_SW_BP)

    def _disturb(self, action: Preempt | SoftirqNeon) -> Exit | None:
        if self._protocol is not None:
            self._protocol.disturb(action)
        return None


def _checked(access: Mmio) -> tuple[int, int, int | None]:
    """The fields of an access. Raises GuestError."""
    addr, size, data, register = access
    if register is not None and (data is not None or not isinstance(register, int) or not 0 <= register < GENERAL):
        raise GuestError(f"a load goes to a register from 0 to {GENERAL - 1}, not {register!r:.40}")
    if not isinstance(size, int) or size not in SIZES:
        raise GuestError(f"an access has 1, 2, 4 or 8 bytes, not {size!r:.40}")
    if not isinstance(addr, int) or not 0 <= addr <= MASK - size:
        raise GuestError(f"{addr!r:.40} is not a guest-physical address")
    if data is not None and (not isinstance(data, int) or not 0 <= data < 1 << 8 * size):
        raise GuestError(f"a store of {size} bytes takes a number that fits, not {data!r:.40}")
    return addr, size, data


FROM_X0 = object()
"""The yield returns X0, which the VMM may have written."""
DO: dict[type, Callable[[Running, Any], Exit | None]] = {
    type(None): Running._nothing,
    Mmio: Running._access,
    Hypercall: Running._hypercall,
    Wfi: Running._wait_for_interrupt,
    Wfe: Running._wait_for_event,
    Brk: Running._break,
    Preempt: Running._disturb,
    SoftirqNeon: Running._disturb,
}
"""What carries out what a script yields."""
