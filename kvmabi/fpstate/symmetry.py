# SPDX-License-Identifier: MIT
"""Symmetry: states that differ only in the numbering of tasks and CPUs count as one.

Tasks that can do more than others (use vCPUs, for example) are interchangeable only among themselves.
vCPUs keep their numbers.
"""

from __future__ import annotations

import itertools

from kvmabi.fpstate.packing import FIELD, Interned, Packing


class Image(dict[int, int]):
    """The image of one slot's bits under a permutation, computed on first use."""

    def __init__(self, table: Interned, shift: int, target: int, tasks: tuple[int, ...], cpus: tuple[int, ...]) -> None:
        super().__init__()
        self.table, self.shift, self.target, self.tasks, self.cpus = table, shift, target, tasks, cpus

    def __missing__(self, bits: int) -> int:
        component = self.table.make(bits >> self.shift & FIELD)
        image = self.table.number(component.renamed(self.tasks, self.cpus)) << self.target
        self[bits] = image
        return image


def permutations(packing: Packing) -> list[list[tuple[int, Image]]]:
    """All renumberings except the identity, as (mask, image) for each slot."""
    config = packing.config
    special = config.special_tasks
    groups = [range(special), range(special, config.tasks)]
    result = []
    for first, second in itertools.product(*(list(itertools.permutations(g)) for g in groups)):
        tasks = (*first, *second)
        for cpus in itertools.permutations(range(config.cpus)):
            if tasks == tuple(range(config.tasks)) and cpus == tuple(range(config.cpus)):
                continue
            result.append([_image(packing, slot, tasks, cpus) for slot in range(len(packing.slots))])
    return result


def _image(packing: Packing, slot: int, tasks: tuple[int, ...], cpus: tuple[int, ...]) -> tuple[int, Image]:
    target = slot
    if slot < packing.ncpus:
        target = cpus[slot]
    elif slot < packing.ncpus + packing.ntasks:
        target = packing.ncpus + tasks[slot - packing.ncpus]
    image = Image(packing.slots[slot], packing.shifts[slot], packing.shifts[target], tasks, cpus)
    return packing.masks[slot], image


def canonical(state: int, perms: list[list[tuple[int, Image]]]) -> int:
    """The smallest of a state's renumberings."""
    least = state
    for perm in perms:
        image = 0
        for mask, table in perm:
            image += table[state & mask]
        least = min(least, image)
    return least
