# SPDX-License-Identifier: MIT
"""One run of a random VMM, whose losses are known.

>>> from kvmabi.testing.vmms.play import play
>>> kvm, scenario = play(7, wrong=False)
>>> scenario.truth
frozenset()
>>> kvm.close()
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from kvmabi.kvm import Kvm, open_kvm
from kvmabi.testing.vmms import shapes
from kvmabi.testing.vmms.behaviours import MOVING, OTHERS, Behaviour, standby
from kvmabi.testing.vmms.stage import Place, Slot, Stage

EPISODES = (1, 1, 1, 1, 2, 2, 3)
TRIES = 1000
"""How often a run is drawn until its mistake loses something; a few are usual."""


@dataclass(frozen=True)
class Scenario:
    """What happened in a run, and what was lost in it.

    ``seed`` draws it, ``story`` says in words what the VMM did, ``behaviours`` are their names and ``mistake`` is its
    name (None: a right run). ``truth`` holds the registers that had not the saved value when the guest was entered, as
    (VM, vCPU, name). ``latent`` are those that were refused and are equal by luck.
    """

    seed: int
    story: tuple[str, ...]
    behaviours: tuple[str, ...]
    truth: frozenset[Place]
    latent: frozenset[Place]
    mistake: str | None


def play(
    seed: int,
    *,
    wrong: bool,
    mistake: str | None = None,
    behaviour: str | None = None,
    checked: bool = True,
    sme_kernel: str = "",
) -> tuple[Kvm, Scenario]:
    """Play one run on a Kvm of its own, which the caller closes; the same seed gives the same run.

    A right run loses nothing. A wrong run makes one mistake (``mistake``: the one of this name), which loses something
    or would with other values. ``behaviour`` limits the run to one behaviour. ``sme_kernel`` takes the place of the
    kernel that has SME: a profile's name, for the same VMM there. Raises AssertionError if a right run
    has lost something: that is a fault of the generator.
    """
    for attempt in range(TRIES):
        rng = Random(f"{seed} {wrong} {attempt}")
        host, kernel = shapes.draw(rng, sme_kernel)
        kvm = open_kvm(host=host, kernel=kernel, kept_events=0, checked=checked)
        scenario = _attempt(kvm, seed, rng, wrong, mistake, behaviour)
        if not wrong:
            assert scenario is not None
            assert not scenario.truth, f"seed {seed}: a right run has lost {sorted(scenario.truth)[:9]}"
            assert not scenario.latent, f"seed {seed}: a right run was refused {sorted(scenario.latent)[:9]}"
            return kvm, scenario
        if scenario is not None and scenario.mistake is not None and (scenario.truth or scenario.latent):
            return kvm, scenario
        kvm.close()
    raise ValueError(f"seed {seed}: no run with the mistake {mistake!r} in {TRIES} tries")


def _attempt(
    kvm: Kvm, seed: int, rng: Random, wrong: bool, mistake: str | None, behaviour: str | None
) -> Scenario | None:
    """One run, None if its truth is not to be seen from its ioctls."""
    chosen = _choose(rng, wrong, behaviour)
    restores = sum(each.restores for each in chosen)
    slot = Slot(rng.randrange(max(1, restores)) if wrong else None, wanted=mistake)
    stage = Stage(kvm, rng, slot)
    if any(each.play is standby for each in chosen):
        stage.image.with_events = False  # what one checkpoint makes pending, the next one could not take back
    host = kvm.host
    stage.note(
        f"host {host.name} under {kvm.kernel.name}, SVE {'/'.join(map(str, host.sve_vector_bits)) or 'none'}, "
        f"SME {'/'.join(map(str, host.sme_vector_bits)) or 'none'}"
    )
    stage.note(f"behaviours: {', '.join(each.name for each in chosen)}")
    running = [each.play(stage) for each in chosen]
    while running:
        story = rng.choice(running)
        for _ in range(rng.choice((1, 1, 3, 1000))):
            if next(story, story) is story:
                running.remove(story)
                break
    stage.settle_all()
    if stage.is_ambiguous:
        return None
    names = tuple(each.name for each in chosen)
    truth, latent = frozenset(stage.truth), frozenset(stage.latent)
    return Scenario(seed, tuple(stage.story), names, truth, latent, slot.mistake)


def _choose(rng: Random, wrong: bool, name: str | None) -> list[Behaviour]:
    """Some behaviours, at least one of them with a restore if there is to be a mistake."""
    if name is not None:
        return [each for each in (*MOVING, *OTHERS) if each.name == name]
    count = rng.choice(EPISODES)
    every = (*MOVING, *OTHERS)
    chosen = rng.choices(every, [each.weight for each in every], k=count)
    if wrong and not any(each.restores for each in chosen):
        chosen[0] = rng.choices(MOVING, [each.weight for each in MOVING])[0]
    return chosen
