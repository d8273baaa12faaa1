# SPDX-License-Identifier: MIT
"""Mistakes in what is saved: registers that are not read, or not at one moment, and values that are spoiled."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from kvmabi.kvm import Vcpu
from kvmabi.testing.vmms import families
from kvmabi.testing.vmms.families import SME_VLS, SVE_VLS, family
from kvmabi.testing.vmms.machine import SM, Machine, Save, ids_of
from kvmabi.testing.vmms.mistake import Mistake, Occasion, indices
from kvmabi.testing.vmms.plan import Kind

RISKY = frozenset({"vls", "svcr", "id", "count", "firmware", "firmware_bitmap", "demux"})
"""Families of which a KVM refuses most other values."""


def some(rng: Random, ids: list[int]) -> list[int]:
    """Registers that are forgotten together: one, a family, or a random set."""
    how = rng.random()
    if how < 0.35:
        return rng.sample(ids, 1)
    if how < 0.7:
        return families.of(ids, rng.choice(families.present(ids)))
    return rng.sample(ids, rng.randint(2, max(2, len(ids) // 3)))


def forgettable(ids: list[int]) -> list[int]:
    """Registers whose loss a VMM could overlook."""
    return [id for id in ids if family(id) not in ("vls", "count")]


class ForgottenOnSave(Mistake):
    """Registers that the save does not read."""

    name = "not read"
    on_save = True
    weight = 2

    def reads(self, vcpu: Vcpu, ids: list[int]) -> list[int]:
        """All but some."""
        gone = set(some(self.rng, forgettable(ids)))
        return [id for id in ids if id not in gone]


class OnlyCore(Mistake):
    """An old VMM, which knows core registers and some others."""

    name = "only core registers read"
    on_save = True
    must_run = True

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """Any; written over in place, it could be a debugger that puts back what it had changed."""
        return [] if occasion.kind is Kind.OVER else indices(occasion)

    def reads(self, vcpu: Vcpu, ids: list[int]) -> list[int]:
        """The core registers and perhaps the system registers."""
        known = ("core", "fpsr", "fpcr", "v") if self.rng.random() < 0.5 else ("core", "system", "id", "count")
        return families.of(ids, *known)


class EarlyList(Mistake):
    """The list was read when ZA or streaming mode was off."""

    name = "list read too early"
    on_save = True
    weight = 4

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs whose list has grown."""
        lists = occasion.source.early_lists
        return [
            vcpu.index
            for vcpu in occasion.source.vcpus
            if vcpu.index < len(lists) and set(ids_of(vcpu)) - set(lists[vcpu.index])
        ]

    def reads(self, vcpu: Vcpu, ids: list[int]) -> list[int]:
        """The old list."""
        return self.occasion.source.early_lists[vcpu.index]


class CappedList(Mistake):
    """A buffer that is too small for the list."""

    name = "list capped"
    on_save = True

    def reads(self, vcpu: Vcpu, ids: list[int]) -> list[int]:
        """The list without its end."""
        return ids[: -self.rng.randint(4, min(120, len(ids) // 2))]


class TornSave(Mistake):
    """The guest runs between two halves of the reads."""

    name = "torn save"
    on_save = True
    weight = 4
    all_or_one = False

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """Any vCPU of a VM that runs."""
        return indices(occasion) if occasion.source.has_run else []

    def torn_at(self, ids: list[int]) -> int:
        """Somewhere in the middle."""
        return self.rng.randint(len(ids) // 8, len(ids) * 5 // 8)


class CutToOtherLength(Mistake):
    """Z is kept at the length of the other mode."""

    name = "vectors cut to the other length"
    weight = 4

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs of which the other mode's length is shorter."""
        return [save.vcpu for save in occasion.saves if 0 < _other_bytes(save) < _own_bytes(save)]

    def values(self, save: Save) -> dict[int, bytes]:
        """Z, and perhaps P, as if the vector had the other length."""
        size = _other_bytes(save)
        sizes = {"z": size} if self.rng.random() < 0.5 else {"z": size, "p": size // 8}
        return {id: cut(value, sizes.get(family(id), len(value))) for id, value in save.values.items()}


def cut(value: bytes, size_bytes: int) -> bytes:
    """A value with zeroes instead of its upper bytes."""
    return value[:size_bytes].ljust(len(value), b"\0")


def _own_bytes(save: Save) -> int:
    return _bytes(save, SME_VLS if save.svcr & SM else SVE_VLS)


def _other_bytes(save: Save) -> int:
    return _bytes(save, SVE_VLS if save.svcr & SM else SME_VLS)


def _bytes(save: Save, vls: int) -> int:
    """The vector length in bytes."""
    return 16 * int.from_bytes(save.values.get(vls, b""), "little").bit_length()


class HighHalvesLost(Mistake):
    """Only the low bytes are kept: V of Z, or 32 of 64 bits."""

    name = "high halves lost"

    def values(self, save: Save) -> dict[int, bytes]:
        """One family without its upper bytes."""
        kept = {"z": 16, "v": 8, "core": 4, "system": 4}
        bank = self.rng.choice([bank for bank in families.present(save.values) if bank in kept])
        return {id: cut(value, kept[bank]) if family(id) == bank else value for id, value in save.values.items()}


class ByteOrder(Mistake):
    """The bytes of a value are swapped, in one register or in a family."""

    name = "byte order swapped"

    def values(self, save: Save) -> dict[int, bytes]:
        """Values in big-endian order."""
        chosen = set(_spoilable(self.rng, save))
        return {id: value[::-1] if id in chosen else value for id, value in save.values.items()}


class OffByOne(Mistake):
    """IDs and values are off by one in a stretch of the file."""

    name = "off by one"

    def values(self, save: Save) -> dict[int, bytes]:
        """The registers of a stretch have the next one's value."""
        banks = [bank for bank in families.banks(save.values) if len(bank) > 3 and family(bank[0]) not in RISKY]
        bank = self.rng.choice(banks)
        start = self.rng.randrange(len(bank) - 2)
        stretch = bank[start : start + self.rng.randint(2, len(bank))]
        shifted = {id: save.values[other] for id, other in pairwise(stretch)}
        return save.values | {id: value for id, value in shifted.items() if len(value) == len(save.values[id])}


class Corrupted(Mistake):
    """One bit of one value is wrong."""

    name = "value corrupted"
    all_or_one = False

    def values(self, save: Save) -> dict[int, bytes]:
        """One bit of one byte differs."""
        id = self.rng.choice([id for id in save.values if family(id) not in RISKY])
        value = bytearray(save.values[id])
        value[self.rng.randrange(len(value) if len(value) <= 8 else 16)] ^= 1 << self.rng.randrange(8)
        return save.values | {id: bytes(value)}


def _spoilable(rng: Random, save: Save) -> list[int]:
    ids = [id for id in save.values if family(id) not in RISKY]
    return rng.sample(ids, 1) if rng.random() < 0.5 else families.of(ids, rng.choice(families.present(ids)))


class Stale(Mistake):
    """A family of an older checkpoint is mixed in."""

    name = "stale family"
    weight = 4

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """vCPUs of which an older save has the same registers with other values."""
        return [save.vcpu for save in occasion.saves if _stale_banks(occasion.source, save)]

    def values(self, save: Save) -> dict[int, bytes]:
        """One family as it was."""
        bank = self.rng.choice(_stale_banks(self.occasion.source, save))
        return save.values | bank


def _stale_banks(source: Machine, save: Save) -> list[dict[int, bytes]]:
    """By family, the values of older saves that differ from this one's."""
    moments = [moment for moment in source.saves if any(other is save for other in moment)]
    older = source.saves[: source.saves.index(moments[0])] if moments else source.saves
    banks = []
    for moment in older[-2:]:
        old = next((other for other in moment if other.vcpu == save.vcpu), None)
        if old is None or old.svcr != save.svcr:
            continue
        for bank in families.banks(save.values):
            differing = [id for id in bank if id in old.values and old.values[id] != save.values[id]]
            if differing and family(bank[0]) not in RISKY:
                banks.append({id: old.values[id] for id in bank if id in old.values})
    return banks


class ShortFile(Mistake):
    """The file is cut short, and the VMM restores what it got."""

    name = "file cut short"
    must_run = True

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """Any; written over in place, it could be a debugger that puts back what it had changed."""
        return [] if occasion.kind is Kind.OVER else indices(occasion)

    def values(self, save: Save) -> dict[int, bytes]:
        """The first part of the registers."""
        kept = self.rng.randint(len(save.values) // 8, len(save.values) * 9 // 10)
        return dict(list(save.values.items())[:kept])


class Swapped(Mistake):
    """The saves of two vCPUs are swapped."""

    name = "vCPUs swapped"
    weight = 3

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """Any, if there are two."""
        return indices(occasion) if len(occasion.saves) > 1 else []

    def loads(self, saves: list[Save]) -> list[Save]:
        """Two of the saves in each other's place; the truth stays with its vCPU."""
        first, second = self.rng.sample(range(len(saves)), 2)
        loaded = list(saves)
        loaded[first], loaded[second] = _as(saves[second], saves[first]), _as(saves[first], saves[second])
        return loaded


class OthersState(Swapped):
    """One vCPU's state goes into another one as well, or one family of it."""

    name = "another vCPU's state"

    def loads(self, saves: list[Save]) -> list[Save]:
        """One of the saves twice, or a family of it."""
        first, second = self.rng.sample(range(len(saves)), 2)
        loaded = list(saves)
        if self.rng.random() < 0.5:
            loaded[second] = _as(saves[first], saves[second])
            return loaded
        own, others = saves[second].values, saves[first].values
        banks = [
            bank
            for bank in families.banks(own)
            if family(bank[0]) not in RISKY and any(own[id] != others.get(id, own[id]) for id in bank)
        ]
        bank = self.rng.choice(banks) if banks else []
        loaded[second] = saves[second]._replace(values=own | {id: others[id] for id in bank if id in others})
        return loaded


def _as(save: Save, place: Save) -> Save:
    """A save under the number of another one."""
    return save._replace(vcpu=place.vcpu, state=place.state)


SAVED: tuple[type[Mistake], ...] = (
    *(ForgottenOnSave, OnlyCore, EarlyList, CappedList, TornSave, CutToOtherLength, HighHalvesLost, ByteOrder),
    *(OffByOne, Corrupted, Stale, ShortFile, Swapped, OthersState),
)
