# SPDX-License-Identifier: MIT
"""A vCPU: its register file, its mode and the register accesses, all answered by the register map."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Any

from kvmabi import uapi
from kvmabi.model.effects import Effect, Effects, Place
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import FAULT, Refusal
from kvmabi.model.registermap import RegisterMap
from kvmabi.model.row import Buffer, Outcome, Row
from kvmabi.model.state import CLOSED, RegisterFile, zeroes
from kvmabi.model.system import System
from kvmabi.model.vmstate import VmState

VCPU_NOT_INITIALIZED = Refusal(errno.ENOEXEC, "the vCPU is not initialised", "call KVM_ARM_VCPU_INIT first")
VCPU_NOT_FINALIZED = Refusal(
    errno.EPERM,
    "a vCPU with SVE or SME is not complete before it is finalised",
    "call KVM_ARM_VCPU_FINALIZE(KVM_ARM_VCPU_VEC) first",
)
NO_VALUES: Mapping[int, bytes] = {}


class Vcpu:
    """One vCPU of a VM, before and after KVM_ARM_VCPU_INIT (``map`` is None before).

    ``index`` is the number given to KVM_CREATE_VCPU; ``memory`` the register file's bytes, ``reset_image`` what INIT
    with the vCPU's features makes them; ``features`` and ``target`` are those of its INIT; ``generation`` rises with
    every access that may have changed a register. ``pmu_ready``: the PMU was set up, with ``pmu_irq`` next to a vGIC.
    ``irq_owners`` are the PPIs that the PMU and, once a run got that far (``timers_enabled``), the timers have claimed.
    ``has_run``: it has entered the guest. ``leftover`` and ``stuck_sve`` are what failed INITs left behind on kernels
    that do not undo them: features that the next INIT gets too, and SVE that stays on. ``zt0_room``: FINALIZE made
    room for ZT0.
    ``accepted`` is the register that a rule last stored as it was given, with no other effect.
    ``mp_state`` is KVM_MP_STATE_*; ``is_new``: another vCPU's CPU_ON has reset this one, whose guest begins anew;
    ``guest_debug`` is the control word of KVM_SET_GUEST_DEBUG.
    ``warnings`` holds what a real kernel would have done to itself, until the next event reports it.
    """

    def __init__(self, vm: VmState[Vcpu], system: System, index: int) -> None:
        self.vm = vm
        self.system = system
        self.index = index
        self.file = system.register_files.take()
        self.memory: Any = self.file.memory
        self.features: frozenset[str] | None = None
        self.target: int | None = None
        self.map: RegisterMap | None = None
        self.mode = Mode(frozenset(), False, 0, 0, False, False, frozenset())
        self.generation = 0
        self.reset_image = b""
        self.pmu_ready = False
        self.pmu_irq: int | None = None
        self.timers_enabled = self.has_run = False
        self.irq_owners: dict[int, str] = {}
        self.leftover: frozenset[str] = frozenset()
        self.stuck_sve = False
        self.zt0_room = False
        self.accepted: Row | None = None
        self.mp_state = int(uapi.KVM_MP_STATE_RUNNABLE)
        self.is_new = False
        self.guest_debug = 0
        self.warnings: list[str] = []
        self._values: tuple[tuple[int, ...], Mapping[int, bytes]] = (-1,), NO_VALUES

    # --- the register map

    def require_init(self) -> RegisterMap:
        """The register map; ENOEXEC before INIT."""
        if self.map is None:
            raise VCPU_NOT_INITIALIZED.error()
        return self.map

    def require_final(self) -> RegisterMap:
        """The register map; ENOEXEC before INIT, EPERM before FINALIZE where that is needed."""
        regmap = self.require_init()
        if self.mode.vector and not self.mode.finalized:
            raise VCPU_NOT_FINALIZED.error(mode=self.mode)
        return regmap

    def remap(self, **changed: Any) -> None:
        """Take the register map of the mode that differs from the present one by ``changed``."""
        self.mode = self.mode._replace(**changed)
        self.map = self.system.map(self.mode)
        self.vm.remaps += 1

    def row(self, id: int) -> Row:
        """The register map's row of a 64-bit ID; ENOEXEC before INIT."""
        return self.require_init().row(id)

    def reg_list(self) -> list[int]:
        """The IDs of KVM_GET_REG_LIST in the kernel's order. Errors: ENOEXEC, EPERM."""
        return self.require_final().listed

    # --- accesses

    def read(self, row: Row, buffer: Buffer) -> Refusal | None:
        """KVM_GET_ONE_REG of a row of the present map into the caller's buffer; returns why it fails, if it does."""
        if row.plain_get:
            value: bytes | Refusal | None = self.memory[row.offset : row.offset + row.size_bytes]
        elif row.get is not None:
            return row.get
        else:
            assert row.getter is not None
            value = row.getter(self, row, buffer)
        if type(value) is bytes:
            return None if buffer.put(value, row.valid_bytes) else FAULT
        return value if type(value) is Refusal else None

    def write(self, row: Row, buffer: Buffer) -> Outcome:
        """KVM_SET_ONE_REG of a row of the present map from the caller's buffer; returns why it fails, or effects."""
        self.generation += 1  # also where it fails: a partial copy has changed the register
        if row.plain_set:
            size = row.valid_bytes
            data = buffer.take(size)
            if len(data) == size:
                self.memory[row.offset : row.offset + size] = data
                return None
            if row.partial:
                self.memory[row.offset : row.offset + size] = data.ljust(size, b"\0")
            return FAULT
        if row.setter is None:
            return row.set
        outcome = row.setter(self, row, buffer)
        if outcome is None and row.plain_get:
            end = row.offset + row.valid_bytes
            self.accepted = row if buffer.taken == self.memory[row.offset : end] else None
        return outcome

    def get(self, row: Row) -> bytes | Refusal | None:
        """A register's value in full size, zero beyond its valid length, or why it cannot be read."""
        if row.plain_get:
            value: bytes = self.memory[row.offset : row.offset + row.size_bytes]
            return value
        return row.get if row.getter is None else row.getter(self, row, NO_BUFFER)

    def get_one_reg(self, id: int) -> bytes:
        """A register's value; raises KvmError."""
        row = self.row(id)
        value = self.get(row)
        if isinstance(value, bytes):
            return value
        raise (value or FAULT).error(row, self.mode)

    def set_one_reg(self, id: int, data: bytes) -> list[Effect]:
        """Write a register and return what else changed; raises KvmError.

        ``data`` holds the payload up to the first byte that could not be read: fewer than the row's ``valid_bytes``
        is a fault, EFAULT, in the order in which the kernel notices it.
        """
        row = self.row(id)
        outcome = self.write(row, Payload(data))
        if isinstance(outcome, Refusal):
            raise outcome.error(row, self.mode)
        return list(outcome or ())

    # --- what rules do

    def value(self, row: Row) -> int:
        """What the register file holds of a row with at most 8 bytes, as a number."""
        return int.from_bytes(self.memory[row.offset : row.offset + row.size_bytes], "little")

    def reset_value(self, row: Row) -> int:
        """The value that a register of 64 bits has right after INIT with the vCPU's features."""
        return int.from_bytes(self.reset_image[row.offset : row.offset + 8], "little")

    def store(self, row: Row, data: bytes) -> None:
        """Put a register's valid bytes into its place, in every vCPU of the VM if it is VM-wide."""
        end = row.offset + len(data)
        if not row.shared:
            self.memory[row.offset : end] = data
            return
        if self.vm.shared.get(row.offset) == data:
            return
        if self.vm.before_sharing is not None:
            self.vm.before_sharing()
        self.vm.shared[row.offset] = data
        for vcpu in self.vm.vcpus.values():
            vcpu.memory[row.offset : end] = data
            vcpu.generation += 1

    def overwrite(self, effects: Effects, id: int, offset: int, value: bytes) -> None:
        """Give a register another value as a side effect of some ioctl."""
        end = offset + len(value)
        before = self.memory[offset:end]
        if before != value:
            self.memory[offset:end] = value
            effects.changed(Effect(id, before, value))

    def wipe(self, effects: Effects, start: int, end: int, places: Iterable[Place]) -> None:
        """Zero the bytes from ``start`` to ``end``; the visible registers at ``places`` there lose their values."""
        before = self.memory[start:end]
        if before != zeroes(end - start):
            self.file.zero(start, end)
            effects.wiped(before, start, places, self.require_init().is_visible)

    def warn(self, text: str) -> None:
        """Leave a warning for the event of this ioctl; the same text is left once."""
        if text not in self.warnings:
            self.warnings.append(text)

    # --- the whole

    def values(self) -> Mapping[int, bytes]:
        """The value of every visible register by ID; empty before INIT."""
        # an ioctl of another vCPU can change the number of counters and the time
        state = self.generation, self.vm.pmu_counters, *self.vm.counter_offsets.values()
        if self._values[0] != state or self.map is None:
            self._values = state, self._read_all()
        return self._values[1]

    def values_in(self, memory: Any, mode: Mode) -> Mapping[int, bytes]:
        """The values of the visible registers in a mode, with ``memory`` as the register file.

        ``memory`` is a buffer whose slices are bytes.
        """
        here = self.memory, self.mode, self.map
        self.memory, self.mode, self.map = memory, mode, self.system.map(mode)
        try:
            return self._read_all()
        finally:
            self.memory, self.mode, self.map = here

    def move_registers(self, memory: Any) -> None:
        """Keep the registers in other memory, which is all zeroes, before INIT."""
        assert self.map is None
        self.file.close()
        self.file = RegisterFile(memory=memory)
        self.memory = memory

    def _read_all(self) -> Mapping[int, bytes]:
        if self.map is None:
            return NO_VALUES
        memory = self.memory[:]
        values: dict[int, bytes] = {}
        for id, row in self.map.rows.items():
            if not row.listed or row.get is not None:
                continue
            value = memory[row.offset : row.offset + row.size_bytes] if row.plain_get else self.get(row)
            if isinstance(value, bytes):
                values[id] = value
        return values

    def close(self) -> None:
        """Give the register file back. Every later access is a ValueError; a second call does nothing."""
        if self.memory is not CLOSED:
            self.memory = CLOSED
            self.file.close()


class Payload:
    """A buffer of this process that holds ``held``: what was ``taken`` of it, and what was ``given`` to it."""

    __slots__ = ("_held", "given", "taken")

    def __init__(self, held: bytes = b"") -> None:
        self._held = held
        self.taken: bytes | None = None
        self.given: bytes | None = None

    def take(self, size_bytes: int) -> bytes:
        """See Buffer.take."""
        self.taken = data = self._held[:size_bytes]
        return data

    def put(self, data: bytes, valid_bytes: int) -> bool:
        """See Buffer.put."""
        self.given = data
        return True


NO_BUFFER = Payload()
