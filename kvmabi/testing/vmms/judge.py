# SPDX-License-Identifier: MIT
"""The checker's verdict against what a run has really lost."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol

from kvmabi.testing.vmms.play import Scenario
from kvmabi.testing.vmms.stage import Place

LATENT = "latent"


class Outcome(StrEnum):
    """How a verdict compares with the truth.

    CLEAN and FALSE_ALARM are of right runs, the others of wrong ones: EXACT reports what was lost and nothing else,
    WRONG_SET something else, MISS nothing. NOT_JUDGED reports nothing of a vCPU that has lost something, and says that
    it looks like a restore and was not judged; nothing else is wrong with the report.
    """

    CLEAN = "clean"
    FALSE_ALARM = "false alarm"
    EXACT = "exact"
    WRONG_SET = "wrong set"
    MISS = "miss"
    NOT_JUDGED = "not judged"


class Loss(Protocol):
    """A register of a finding."""

    @property
    def name(self) -> str:
        """The register's name."""


class Finding(Protocol):
    """A finding on one vCPU. ``severity`` is "latent" for what is equal by luck."""

    @property
    def vm(self) -> int:
        """The VM's number."""

    @property
    def vcpu(self) -> int:
        """The vCPU's index."""

    @property
    def losses(self) -> Iterable[Loss]:
        """The registers."""

    @property
    def severity(self) -> str:
        """How bad it is."""


class NotJudged(Protocol):
    """A vCPU that was not judged."""

    @property
    def vm(self) -> int:
        """The VM's number."""

    @property
    def vcpu(self) -> int:
        """The vCPU's index."""

    @property
    def is_restore(self) -> bool:
        """Whether it looks like a restore."""


class Verdict(Protocol):
    """The part of kvmabi.order.Verdict that counts here."""

    @property
    def findings(self) -> Iterable[Finding]:
        """What was found."""

    @property
    def not_judged(self) -> Iterable[NotJudged]:
        """What was not judged."""


def reported(verdict: Verdict) -> tuple[frozenset[Place], frozenset[Place]]:
    """The registers that a verdict reports as lost or changed, and those that it reports as latent only."""
    lost: set[Place] = set()
    latent: set[Place] = set()
    for finding in verdict.findings:
        places = latent if finding.severity == LATENT else lost
        places |= {(finding.vm, finding.vcpu, loss.name) for loss in finding.losses}
    return frozenset(lost), frozenset(latent - lost)


def judge(verdict: Verdict, scenario: Scenario) -> Outcome:
    """Compares a verdict with the truth."""
    lost, latent = reported(verdict)
    if scenario.mistake is None:
        return Outcome.FALSE_ALARM if lost or latent else Outcome.CLEAN
    if (lost, latent) == (scenario.truth, scenario.latent):
        return Outcome.EXACT
    aside = {(each.vm, each.vcpu) for each in verdict.not_judged if each.is_restore}
    missing = (scenario.truth - lost) | (scenario.latent - latent)
    if lost <= scenario.truth and latent <= scenario.latent and all(place[:2] in aside for place in missing):
        return Outcome.NOT_JUDGED
    return Outcome.WRONG_SET if lost or latent else Outcome.MISS


def difference(verdict: Verdict, scenario: Scenario) -> tuple[frozenset[Place], frozenset[Place]]:
    """What a verdict does not report though it was lost, and what it reports though it was not; latent or not."""
    lost, latent = reported(verdict)
    due = scenario.truth | scenario.latent
    return due - lost - latent, (lost | latent) - due
