# SPDX-License-Identifier: MIT
"""A guest's Z registers on the FP-ownership protocol of a kernel: what its bugs look like through KVM_GET_ONE_REG.

The protocol model (kvmabi.fpstate) says whose value, and how recent, each register and saved copy holds; here those
tokens stand for bytes. Z's low 128 bits are V to the protocol; it moves the rest of Z separately.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from kvmabi import fpstate
from kvmabi.errors import UsageError
from kvmabi.fpstate import tokens
from kvmabi.fpstate.ownership import LIVE, OBSERVATIONS
from kvmabi.guests.actions import Preempt, SoftirqNeon
from kvmabi.model import state, sve
from kvmabi.model.vcpu import Vcpu

V_BYTES = state.V_BYTES
_FOREIGN = {"U": 0xA0, "K": 0xB0, "junk": 0xEE}
CONFIG = replace(LIVE, nvhe=True, guest_vl=True)


class Ownership:
    """A vCPU's Z registers between ``enter`` and ``leave``, one KVM_RUN. Those of the vCPU are the initial values.

    ``variant`` names a kernel's protocol ("v6.12"); the default is that of current kernels, where every step
    asserts that guest and VMM see their own registers (fpstate.Violation otherwise). On a named kernel nothing
    is asserted: ``broken`` collects the violations of the protocol. Raises UsageError for a vCPU without SVE.
    """

    def __init__(self, vcpu: Vcpu, variant: str | None = None) -> None:
        vcpu.require_final()
        if not vcpu.mode.sve:
            raise UsageError("a guest on another kernel's protocol needs a vCPU with SVE")
        self.vcpu = vcpu
        self.broken: list[str] = []
        self._watching = variant is not None
        self._protocol = fpstate.Ownership(variant, CONFIG, check=None if self._watching else OBSERVATIONS)
        self._newest = self._registers()
        self._older = self._newest
        self._protocol.run()

    def enter(self) -> None:
        """vcpu_load, and into the guest."""
        self._newest = self._registers()
        self._protocol.vcpu_load()
        self._protocol.guest_enter()

    def leave(self) -> None:
        """Out of the guest, vcpu_put and back to the VMM, which then reads what the kernel saved."""
        protocol = self._protocol
        protocol.guest_exit()
        protocol.vcpu_put()
        self._save()
        protocol.ret_to_user()
        self._note()
        protocol.steps.clear()  # a guest goes on for as long as it likes

    def write(self, n: int, value: bytes) -> None:
        """The guest writes Z<n>: ``value`` has its full size, zeroes included."""
        self._protocol.guest_write()
        self._older, self._newest = self._newest, {**self._newest, n: value}
        self._note()

    def read(self, n: int) -> bytes:
        """What the guest reads from Z<n>."""
        self._protocol.fp_trap()
        cpu = self._protocol.machine.cpus[0]
        self._note()
        return self._value(n, cpu.V, cpu.Z)

    def choose_length(self) -> None:
        """The guest picks a vector length below its maximum (a write of ZCR_EL1.LEN)."""
        self._protocol.fp_trap()
        with suppress(UsageError):  # it is as short already
            self._protocol.do("guest_write_zcr")
        self._note()

    def disturb(self, what: Preempt | SoftirqNeon) -> None:
        """A step of the host between an exit of the guest and its next entry."""
        protocol = self._protocol
        protocol.guest_exit()
        self._note()
        if isinstance(what, Preempt):
            protocol.preempt()
        else:
            protocol.softirq_neon()
        self._note()
        protocol.guest_enter()
        self._note()

    def _save(self) -> None:
        """Copy the guest state that the kernel saved, correct or not, to the vCPU's registers."""
        saved = self._protocol.machine.vcpus[0]
        for n, id in enumerate(sve.Z_IDS):
            self.vcpu.store(self.vcpu.row(id), self._value(n, saved.sV, saved.sZ))
        self.vcpu.generation += 1

    def _value(self, n: int, low: int, rest: int) -> bytes:
        """The bytes of Z<n> whose low 128 bits hold one token and the rest another."""
        value = self._bytes(n, low)[:V_BYTES] + self._bytes(n, rest)[V_BYTES:]
        return value[: self.vcpu.mode.vq * 16].ljust(state.Z_BYTES, b"\0")

    def _bytes(self, n: int, token: int) -> bytes:
        if token == tokens.ZERO:
            return bytes(state.Z_BYTES)
        owner = tokens.owner_of(token)
        if tokens.is_guest(owner):
            return (self._newest if token == tokens.fresh(owner) else self._older)[n]
        kind = tokens.owner_name(owner)[0] if owner != tokens.NOBODY else "junk"
        return bytes([_FOREIGN.get(kind, _FOREIGN["junk"])]) * state.Z_BYTES

    def _registers(self) -> dict[int, bytes]:
        """The vCPU's Z registers by number, as userspace sees them."""
        return {n: self.vcpu.get_one_reg(id) for n, id in enumerate(sve.Z_IDS)}

    def _note(self) -> None:
        if self._watching:
            self.broken += [f"{breach.clause}: {breach.text}" for breach in self._protocol.broken]
