# SPDX-License-Identifier: MIT
"""All mistakes, and the draw of the one that a wrong run makes."""

from __future__ import annotations

from kvmabi.testing.vmms.mistake import Mistake, Occasion
from kvmabi.testing.vmms.mistakes_restored import RESTORED
from kvmabi.testing.vmms.mistakes_saved import SAVED

MISTAKES = (*SAVED, *RESTORED)
"""Every kind of mistake."""
SAVE_SHARE = 0.28
"""The share of mistakes that are made while saving."""


def names() -> list[str]:
    """The names of all mistakes."""
    return [mistake.name for mistake in MISTAKES]


def draw(occasion: Occasion, *, wanted: str | None = None) -> Mistake | None:
    """A mistake that fits the occasion, or the ``wanted`` one; None if it does not fit."""
    on_save = not occasion.saves
    fitting = [
        (mistake, candidates)
        for mistake in MISTAKES
        if mistake.on_save is on_save
        and wanted in (None, mistake.name)
        and (candidates := mistake.candidates(occasion))
    ]
    if not fitting:
        return None
    rng = occasion.rng
    (chosen, candidates), *_ = rng.choices(fitting, [mistake.weight for mistake, _ in fitting])
    victims = frozenset(candidates)
    if not chosen.everywhere and (not chosen.all_or_one or rng.random() < 0.5):
        victims = frozenset({rng.choice(candidates)})
    return chosen(occasion, victims)
