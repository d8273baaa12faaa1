# SPDX-License-Identifier: MIT
"""Whether what was written to a vCPU is a restore of a save, rather than something else with some equal values.

docs/explanation/verdicts.md is the prose of this file and of kvmabi.order.pairing.
"""

from __future__ import annotations

from kvmabi.order.fitting import FEW, Fit, differing, is_exact, turns_time_back
from kvmabi.order.writes import FEWEST_WRITES, Writes

HALF, MOST, NEARLY_ALL, ALL_BUT_FEW = 0.5, 0.8, 0.9, 0.98
"""Shares of a save's groups of registers that must have been attempted for different conclusions."""
NEARLY_NONE = 1.0
"""How many groups of registers are given other values by a few edits."""
FEWEST_ALIKE = 16
"""How many registers with telling values must agree where something disagrees, or where much was not attempted."""


def accepts(writes: Writes, found: Fit) -> bool:
    """Whether what was written is a restore of this save, rather than something else with some equal values."""
    own = found.save.place == writes.place and not found.save.from_run
    if turns_time_back(writes, found.save):
        return writes.entered and found.save.is_large and found.coverage >= HALF
    if len(writes.evidence) < FEWEST_WRITES and not ((own or _is_told_by_few(writes, found)) and _is_rollback(found)):
        return False
    if found.unlike:  # with unlike == 0 enough is alike, or nearly all was attempted
        agrees = found.alike_ids >= FEWEST_ALIKE and found.alike >= found.unlike
        agrees = agrees and (found.unlike <= NEARLY_NONE or found.coverage >= MOST)  # else of the same guest image
        agrees = agrees or (found.alike_ids >= FEWEST_ALIKE and _is_near(writes, found))
    else:
        agrees = found.alike_ids >= FEWEST_ALIKE or found.coverage >= MOST
    if not agrees:
        return False
    if not writes.entered and not writes.gave_up:
        return is_complete(found)
    if not writes.fresh:
        if not found.save.is_large:
            return is_exact(writes, found.save)  # a debugger reads and writes back a few
        enough = found.written >= (HALF if own else NEARLY_ALL) or (own and _is_rollback(found))
        return enough or (own and (_is_left_alone(found) or is_exact(writes, found.save)))
    return found.coverage >= HALF or not (found.unlike or found.save.from_run)


def _is_told_by_few(writes: Writes, found: Fit) -> bool:
    """Whether few values that were written speak for another vCPU's save: all machines boot with the same few."""
    return found.alike_ids >= FEW or (found.alike_ids > 0 and is_exact(writes, found.save))


def _is_rollback(found: Fit) -> bool:
    """Whether what differed from a vCPU's own save was written, after all was looked at; a register may be missing."""
    return found.ids >= 1 or (found.ids >= ALL_BUT_FEW and not found.mismatch)


def _is_near(writes: Writes, found: Fit) -> bool:
    """Whether all of a save was attempted, and a tenth of its registers at most has other values."""
    attempted = found.written >= NEARLY_ALL and found.ids >= ALL_BUT_FEW
    return attempted and differing(writes, found.save) <= (1 - NEARLY_ALL) * len(found.save.state)


def _is_left_alone(found: Fit) -> bool:
    """Whether many values of a vCPU's own save were written, no other ones, and most of it was equal when looked at."""
    return found.alike_ids >= FEWEST_ALIKE and found.coverage >= MOST and found.mismatch <= NEARLY_NONE


def is_complete(found: Fit) -> bool:
    """Whether a restore that the guest never saw was done: most of a save of much of the state was attempted."""
    return found.save.is_large and found.coverage >= MOST and found.ids >= MOST


def is_likely(writes: Writes, found: Fit) -> bool:
    """Whether a vCPU of a VM that was restored was restored, too: less must speak for it."""
    if not writes.entered:
        return is_complete(found)
    if not writes.fresh:
        return (found.written >= HALF or found.ids >= NEARLY_ALL) and found.save.is_large
    return found.coverage >= HALF or not found.unlike


def is_nearly(writes: Writes, found: Fit) -> bool:
    """Whether a vCPU was given many values of a save, and no others, though not enough for a restore of it.

    Or after INIT values for all registers of a save, a third of them as saved.
    """
    if not found.save.is_large:
        return False
    if found.unlike:
        attempted = found.written >= NEARLY_ALL and found.ids >= ALL_BUT_FEW and writes.fresh
        return attempted and found.alike_ids >= FEWEST_ALIKE and 2 * found.alike >= found.unlike
    if writes.fresh and len(writes.attempts) >= FEWEST_ALIKE:  # a file cut short may end before values that tell
        return found.alike_ids >= FEW or found.superseded <= NEARLY_NONE  # and a clone gets an MPIDR of its own
    if found.alike_ids >= FEWEST_ALIKE and found.save.place == writes.place:
        return True
    return found.coverage >= HALF and (found.alike_ids >= FEW or found.save.place == writes.place)
