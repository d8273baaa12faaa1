# SPDX-License-Identifier: MIT
"""Which VM a VM was restored from: all its vCPUs vote, by how well a VM's saves fit what was written to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from kvmabi.order.fitting import Fit, counters_of, differing
from kvmabi.order.restores import ALL_BUT_FEW, MOST, NEARLY_NONE
from kvmabi.order.writes import Writes

Source = tuple[str, int]
"""A run ("" for this one) and a VM of it."""
DIGITS = 6
"""How exactly scores are compared: they are sums in any order."""


def source_of(found: Fit) -> Source:
    """The VM of a fit's save."""
    return found.save.from_run, found.save.vm


def sources(
    restored: Iterable[Writes], fits: Mapping[int, Sequence[Fit]], looser: Mapping[int, Sequence[Fit]]
) -> list[Source]:
    """The VMs whose saves fit best, the earliest first: ``fits`` are those of restores, by ``id()`` of the writes.

    ``looser`` are the fits of values that make no restore by themselves, too: they decide between equal VMs.

    Of those that fit as well, or nearly as well with the guest's time, one of this run counts, then the one whose time
    was restored, then the one that was attempted wholly, then the one that the vCPUs differ least from, then the one
    whose vCPUs of the same index fit best. What is left cannot be told apart.
    """
    scores: dict[Source, float] = defaultdict(float)
    by_index: dict[Source, float] = defaultdict(float)
    timed: dict[Source, int] = defaultdict(int)
    whole: dict[Source, int] = defaultdict(int)
    apart: dict[Source, int] = defaultdict(int)
    for writes in restored:
        best = _best(fits[id(writes)])
        for vm, found in best.items():
            scores[vm] += found.score
            timed[vm] += len(counters_of(writes, found.save))
            whole[vm] += found.ids >= ALL_BUT_FEW
            apart[vm] += differing(writes, found.save) if len(best) > 1 else 0
        for vm, found in _best([found for found in looser[id(writes)] if found.save.vcpu == writes.vcpu]).items():
            by_index[vm] += found.score
    if not scores:
        return []
    most = max(scores.values())
    ranks = {
        vm: (vm[0] == "", timed[vm], whole[vm], -apart[vm], round(by_index[vm], DIGITS))
        for vm, score in scores.items()
        if score >= most - NEARLY_NONE or (timed[vm] and score >= MOST * most)
    }
    first = max(ranks.values())
    return sorted((vm for vm, rank in ranks.items() if rank == first), key=lambda vm: vm[1])


def _best(fits: Iterable[Fit]) -> dict[Source, Fit]:
    """The best fit of each VM."""
    best: dict[Source, Fit] = {}
    for found in fits:
        vm = source_of(found)
        if vm not in best or found.score > best[vm].score:
            best[vm] = found
    return best
