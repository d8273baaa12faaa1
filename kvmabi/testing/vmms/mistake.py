# SPDX-License-Identifier: MIT
"""A mistake of a VMM: where it fits, whom it hits, and what it does to a save and a restore."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar, NamedTuple

from kvmabi.kvm import Vcpu
from kvmabi.testing.vmms.machine import Machine, Save
from kvmabi.testing.vmms.plan import Kind, Step


class Occasion(NamedTuple):
    """Where a mistake could be made: a save of ``source`` (``saves`` is empty), or a restore of its saves.

    ``kind`` is that of the restore, of a save the one that is to follow.
    ``over`` is the VM that is written over, None for a new one. ``counter_hz`` is the host's.
    """

    rng: Random
    source: Machine
    saves: Sequence[Save] = ()
    kind: Kind = Kind.NEW
    over: Machine | None = None
    counter_hz: int = 1

    def current(self, index: int) -> Vcpu:
        """The vCPU that is saved or written over."""
        machine = self.over or self.source
        return next(vcpu for vcpu in machine.vcpus if vcpu.index == index)


class Mistake:
    """A VMM without mistakes: each kind of mistake overrides what it gets wrong.

    ``victims`` are the indices of the vCPUs concerned. ``on_save``: it is made while saving, otherwise while
    restoring. ``must_run``: only an entry of the guest shows that the VMM was done; ``cannot_run``: KVM_RUN fails
    afterwards. ``fatal``: the restore is given up at the first write that is refused. ``weight`` is how often it is
    drawn where it fits. ``all_or_one``: it can hit all vCPUs that it fits, as a VMM's fault in its code does, or one;
    ``everywhere``: it always hits all.
    """

    name: ClassVar[str]
    on_save: ClassVar[bool] = False
    must_run: bool = False
    cannot_run: ClassVar[bool] = False
    fatal: ClassVar[bool] = False
    weight: ClassVar[float] = 1
    all_or_one: ClassVar[bool] = True
    everywhere: ClassVar[bool] = False

    def __init__(self, occasion: Occasion, victims: frozenset[int]) -> None:
        self.occasion = occasion
        self.rng = occasion.rng
        self.victims = victims

    @classmethod
    def candidates(cls, occasion: Occasion) -> list[int]:
        """The indices of the vCPUs that it could concern."""
        return indices(occasion)

    def reads(self, vcpu: Vcpu, ids: list[int]) -> list[int]:
        """The registers that the save of a victim reads."""
        return ids

    def torn_at(self, ids: list[int]) -> int | None:
        """How many registers of a victim are read before its guest runs on; None for all."""
        return None

    def features(self, features: frozenset[str]) -> frozenset[str]:
        """The features of the destination's vCPUs."""
        return features

    def loads(self, saves: list[Save]) -> list[Save]:
        """What the restore takes for the save, of all vCPUs."""
        return [save._replace(values=self.values(save)) if save.vcpu in self.victims else save for save in saves]

    def values(self, save: Save) -> dict[int, bytes]:
        """What the restore takes for the values of a victim."""
        return save.values

    def steps(self, steps: list[Step], save: Save) -> list[Step]:
        """The steps that restore a victim."""
        return steps

    def all_steps(self, plans: dict[int, list[Step]]) -> dict[int, list[Step]]:
        """The steps of all vCPUs, by index."""
        return plans


def indices(occasion: Occasion) -> list[int]:
    """The indices of the vCPUs that are saved, or whose saves are restored."""
    if occasion.saves:
        return [save.vcpu for save in occasion.saves]
    return [vcpu.index for vcpu in occasion.source.vcpus]
