# SPDX-License-Identifier: MIT
"""A vCPU: its register file, its mode and the three register accesses, all answered by the register map."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kvmabi.errors import KvmError
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Effect, Refusal, RegisterMap, Row
from kvmabi.model.state import RegisterFile

if TYPE_CHECKING:
    from kvmabi.model.vm import Vm

Place = tuple[int, int, int]
"""A register's id, its place in the register file and its size, both in bytes."""
NO_EFFECTS: Sequence[Effect] = ()
NOT_INITIALIZED = Refusal(errno.ENOEXEC, "the vCPU is not initialised", "call KVM_ARM_VCPU_INIT first")
NOT_FINALIZED = Refusal(
    errno.EPERM,
    "a vCPU with SVE or SME is not complete before it is finalised",
    "call KVM_ARM_VCPU_FINALIZE(KVM_ARM_VCPU_VEC) first",
)
FAULT = Refusal(errno.EFAULT, "the payload's address cannot be accessed for the register's length")


class Vcpu:
    """One vCPU of a VM, before and after KVM_ARM_VCPU_INIT (``map`` is None before).

    ``index`` is the number given to KVM_CREATE_VCPU. ``pmu_ready`` tells whether the PMU was set up, with
    ``pmu_irq`` if there is a vGIC. ``irq_owners`` are the PPIs that the PMU and, once a
    run got that far (``timers_enabled``), the timers have claimed.
    ``leftover`` and ``stuck_sve`` are what failed INITs left behind on kernels that do not undo them: features
    that the next INIT gets too, and SVE that stays on. ``zt0_room`` tells whether FINALIZE made
    room for ZT0; ``warnings`` holds what a real kernel would have done to itself, for whoever logs it.
    """

    def __init__(self, vm: Vm, index: int) -> None:
        self.vm = vm
        self.system = vm.system
        self.index = index
        self.file = RegisterFile()
        self.features: frozenset[str] | None = None
        self.map: RegisterMap | None = None
        self.mode = Mode(frozenset(), False, 0, 0, False, False, frozenset())
        self.pmu_ready = False
        self.pmu_irq: int | None = None
        self.timers_enabled = False
        self.irq_owners: dict[int, str] = {}
        self.leftover: frozenset[str] = frozenset()
        self.stuck_sve = False
        self.zt0_room = False
        self.warnings: list[str] = []

    def require_init(self) -> RegisterMap:
        """The register map; ENOEXEC before INIT."""
        if self.map is None:
            raise refusal_error(NOT_INITIALIZED)
        return self.map

    def require_final(self) -> RegisterMap:
        """The register map; ENOEXEC before INIT, EPERM before FINALIZE where that is needed."""
        known = self.require_init()
        if self.mode.vector and not self.mode.finalized:
            raise refusal_error(NOT_FINALIZED, mode=self.mode)
        return known

    def remap(self, **changed: Any) -> None:
        """Take the register map of the mode that differs from the present one by ``changed``."""
        self.mode = self.mode._replace(**changed)
        self.map = self.system.map(self.mode)

    def row(self, id: int) -> Row:
        """The register map's row of a 64-bit id; ENOEXEC before INIT."""
        return self.require_init().row(id)

    def reg_list(self) -> list[int]:
        """The ids of KVM_GET_REG_LIST in the kernel's order. Errors: ENOEXEC, EPERM."""
        return self.require_final().listed

    def get_one_reg(self, id: int) -> bytes:
        """A register's value, as many bytes as its id says, zero beyond its valid length; raises KvmError."""
        return self.get(self.row(id))

    def get(self, row: Row) -> bytes:
        """The same for a row of the present register map."""
        if row.get is not None:
            raise self.refused(row, row.get)
        if row.get_rule is not None:
            return row.get_rule(self, row)
        return self.file.memory[row.offset : row.offset + row.size_bytes]

    def value(self, row: Row) -> int:
        """What the register file holds of a row with at most 8 bytes, as a number."""
        return int.from_bytes(self.file.memory[row.offset : row.offset + row.size_bytes], "little")

    def reset_value(self, row: Row) -> int:
        """The value that a register of 64 bits has right after INIT with the vCPU's features."""
        image = self.system.reset_image(self.mode.features)
        return int.from_bytes(image[row.offset : row.offset + 8], "little")

    def set_one_reg(self, id: int, data: bytes) -> list[Effect]:
        """Write a register and tell what else changed; raises KvmError.

        ``data`` holds the payload's bytes up to the first that could not be read: fewer than the
        row's ``valid_bytes`` is a fault, EFAULT, in the order in which the kernel notices it.
        """
        return list(self.set(self.row(id), data))

    def set(self, row: Row, data: bytes) -> Iterable[Effect]:
        """The same for a row of the present register map; the effects are looked for when somebody asks for them."""
        short = len(data) < row.valid_bytes
        if row.set is not None:
            raise self.refused(row, FAULT if short and row.fault_first else row.set)
        if short:
            if row.torn:
                self.store(row, data.ljust(row.valid_bytes, b"\0"))
            raise self.refused(row, FAULT)
        data = data[: row.valid_bytes]
        if row.rule is not None:
            return row.rule(self, row, data)
        self.store(row, data)
        return NO_EFFECTS

    def store(self, row: Row, data: bytes) -> None:
        """Put a register's valid bytes into its place, in every vCPU of the VM if it is the VM's."""
        end = row.offset + len(data)
        if not row.shared:
            self.file.memory[row.offset : end] = data
            return
        self.vm.shared[row.offset] = data
        for vcpu in self.vm.vcpus.values():
            vcpu.file.memory[row.offset : end] = data

    def overwrite(self, id: int, offset: int, value: bytes) -> list[Effect]:
        """Give a register another value as a side effect of some ioctl; tells it unless nothing changed."""
        end = offset + len(value)
        before = self.file.memory[offset:end]
        if before == value:
            return []
        self.file.memory[offset:end] = value
        return [Effect(id, before, value)]

    def wipe(self, start: int, end: int, places: Iterable[Place]) -> Iterable[Effect]:
        """Zero the bytes from ``start`` to ``end``; tells which of the registers at ``places`` lost a value in view."""
        before = self.file.memory[start:end]
        if before == bytes(end - start):
            return ()
        self.file.zero(start, end)
        return _lost(self.require_init(), before, ((id, offset - start, size) for id, offset, size in places))

    def refused(self, row: Row, refusal: Refusal) -> KvmError:
        """The error that tells why an access to ``row`` failed in the present mode."""
        return refusal_error(refusal, row, self.mode)

    def state(self) -> dict[int, bytes]:
        """The value of every register in view, by id; empty before INIT."""
        if self.map is None:
            return {}
        rows, memory = self.map.rows, self.file.memory[:]
        return {
            id: row.get_rule(self, row) if row.get_rule else memory[row.offset : row.offset + row.size_bytes]
            for id, row in rows.items()
            if row.listed and row.get is None and not row.backwards
        }

    def swallow(self, row: Row, data: bytes) -> None:
        """A get that works backwards: the register takes what the caller's buffer holds; EFAULT if that is short."""
        if row.get is not None:
            raise self.refused(row, row.get)
        if len(data) < row.valid_bytes:
            raise self.refused(row, FAULT)
        self.store(row, data[: row.valid_bytes])

    def warn(self, text: str) -> None:
        """Leave a warning for the next event; the same one is left once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def close(self) -> None:
        """Give the register file back."""
        self.file.close()


def _lost(known: RegisterMap, before: bytes, places: Iterable[Place]) -> Iterator[Effect]:
    """The registers whose bytes ``before``, at these places in it, were in view and not zero."""
    for id, offset, size in places:
        value = before[offset : offset + size]
        if any(value) and (row := known.find(id)) is not None and row.get is None:
            yield Effect(id, value, bytes(size))


def refusal_error(refusal: Refusal, register: Row | None = None, mode: Mode | str = "") -> KvmError:
    """A refusal as the exception that carries it to the VMM and to the user."""
    return KvmError(refusal.errno, refusal.reason, register=register, mode=mode, remedy=refusal.remedy)
