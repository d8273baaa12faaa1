# SPDX-License-Identifier: MIT
"""A scripted guest on the FP-ownership protocol of a kernel: what its bugs look like through KVM_GET_ONE_REG.

The protocol model (kvmabi.fpstate) says whose value, and how recent, each register and saved copy holds; here those
tokens stand for bytes. Z's low 128 bits are V to the protocol; it moves the rest of Z separately.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from kvmabi import fpstate, regid
from kvmabi.errors import UsageError
from kvmabi.fpstate import tokens
from kvmabi.fpstate.ownership import LIVE, OBSERVATIONS
from kvmabi.model import state, sve
from kvmabi.model.vcpu import Vcpu

V_BYTES = state.V_BYTES
_FOREIGN = {"U": 0xA0, "K": 0xB0, "junk": 0xEE}


class Write(NamedTuple):
    """The guest writes Z registers: bytes by name; the rest of each register becomes zero."""

    registers: Mapping[str, bytes]


class Read(NamedTuple):
    """The guest reads its Z registers; ``run`` returns what it saw."""


class ChooseVectorLength(NamedTuple):
    """The guest picks a vector length below its maximum (a write of ZCR_EL1.LEN)."""


class Preempt(NamedTuple):
    """Another task of the host, which uses FP registers, runs in between."""


class SoftirqNeon(NamedTuple):
    """A softirq of the host uses NEON in between."""


Step = Write | Read | ChooseVectorLength | Preempt | SoftirqNeon
CONFIG = replace(LIVE, nvhe=True, guest_vl=True)


class Guest:
    """A vCPU's guest: ``run`` is one KVM_RUN with a script. The vCPU's registers are its initial values.

    ``variant`` names a kernel's protocol ("v6.12"); the default is that of current kernels, where every step
    asserts that guest and VMM see their own registers (fpstate.Violation otherwise). On a named kernel nothing
    is asserted: ``broken`` collects the violations of the protocol. Raises UsageError for a vCPU without SVE.
    """

    def __init__(self, vcpu: Vcpu, variant: str | None = None) -> None:
        vcpu.require_final()
        if not vcpu.mode.sve:
            raise UsageError("a scripted guest needs a vCPU with SVE")
        self.vcpu = vcpu
        self.broken: list[str] = []
        self._watching = variant is not None
        self._protocol = fpstate.Ownership(variant, CONFIG, check=None if self._watching else OBSERVATIONS)
        self._newest = self._registers()
        self._older = self._newest
        self._protocol.run()

    def run(self, script: Iterable[Step]) -> list[dict[str, bytes]]:
        """vcpu_load, the script in the guest, vcpu_put and back to the VMM; returns what each Read saw."""
        self._newest = self._registers()
        seen: list[dict[str, bytes]] = []
        protocol = self._protocol
        protocol.vcpu_load()
        protocol.guest_enter()
        for step in script:
            if isinstance(step, Write):
                self._write(step)
            elif isinstance(step, Read):
                seen.append(self._read())
            elif isinstance(step, ChooseVectorLength):
                protocol.fp_trap()
                protocol.do("guest_write_zcr")
            else:
                self._disturb(step)
            self._note()
        protocol.guest_exit()
        protocol.vcpu_put()
        self._save()
        protocol.ret_to_user()
        self._note()
        return seen

    def _write(self, step: Write) -> None:
        self._protocol.guest_write()
        written = dict(self._newest)
        for name, value in step.registers.items():
            id = regid.parse(name)
            if id not in sve.Z_IDS or len(value) > self.vcpu.mode.vq * 16:
                raise UsageError(f"{name}: a guest writes z0 to z31, at most {self.vcpu.mode.vq * 16} bytes")
            written[sve.Z_IDS.index(id)] = value.ljust(state.Z_BYTES, b"\0")
        self._older, self._newest = self._newest, written

    def _read(self) -> dict[str, bytes]:
        self._protocol.fp_trap()
        cpu = self._protocol.machine.cpus[0]
        return {f"z{n}": self._value(n, cpu.V, cpu.Z) for n in range(32)}

    def _disturb(self, step: Step) -> None:
        """Run a step of the host between an exit of the guest and its next entry."""
        protocol = self._protocol
        protocol.guest_exit()
        self._note()
        if isinstance(step, Preempt):
            protocol.preempt()
        else:
            protocol.softirq_neon()
        self._note()
        protocol.guest_enter()

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
