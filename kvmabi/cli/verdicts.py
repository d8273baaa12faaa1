# SPDX-License-Identifier: MIT
"""What ``kvmabi run`` reports: findings with their severity, the pairs that were judged, and those that were not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from kvmabi import order
from kvmabi.cli.sources import Origin


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    LOST = "lost"
    CHANGED = "changed"
    LATENT = "latent"


class Loss(NamedTuple):
    """A register of a finding: the events involved, the reason in words, and its values (None: unknown)."""

    name: str
    id: int
    events: tuple[int, ...]
    why: str
    saved: bytes | None = None
    written: bytes | None = None
    left: bytes | None = None
    consequence: bool = False


@dataclass(frozen=True)
class Pair:
    """A vCPU that was judged against a save; ``from_run`` is "" for a save of this run."""

    vm: int
    vcpu: int
    source_vm: int
    source_vcpu: int
    first_event: int
    last_event: int
    seconds_before: float
    registers: int
    declared: bool
    edits: int
    from_run: str


@dataclass(frozen=True)
class NotJudged:
    """A vCPU that was not judged, why, and what helps; ``is_restore``: it looks like a restore."""

    vm: int
    vcpu: int
    writes: int
    why: str
    hint: str
    is_restore: bool


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong on one vCPU. ``origins`` are labelled places in the program, if known."""

    kind: str
    cause: str
    severity: Severity
    vm: int
    vcpu: int
    losses: tuple[Loss, ...]
    pair: Pair | None
    title: str
    rule: str
    fix: str
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    text: str = ""
    origins: tuple[tuple[str, Origin], ...] = ()

    @property
    def registers(self) -> tuple[str, ...]:
        """The names of the registers concerned."""
        return tuple(loss.name for loss in self.losses)

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as data for JSON."""
        data: dict[str, Any] = {
            "kind": self.kind,
            "cause": self.cause,
            "severity": self.severity,
            "title": self.title,
            "rule": self.rule,
            "fix": self.fix,
            "vm": self.vm,
            "vcpu": self.vcpu,
            "pair": None if self.pair is None else asdict(self.pair),
            "registers": [_loss(loss) for loss in self.losses],
            "events": list(self.lines),
            "notes": list(self.notes),
        }
        if self.origins:
            data["origins"] = [{"label": label, "frames": list(origin.frames)} for label, origin in self.origins]
        return data

    def __str__(self) -> str:
        return self.text or f"{self.title}: VM {self.vm} vCPU {self.vcpu}"


def _loss(loss: Loss) -> dict[str, Any]:
    values = {"saved": loss.saved, "written": loss.written, "left": loss.left}
    return {
        "name": loss.name,
        "id": f"{loss.id:#x}",
        "events": list(loss.events),
        "why": loss.why,
        **{name: None if value is None else value.hex() for name, value in values.items()},
        "consequence": loss.consequence,
    }


@dataclass(frozen=True)
class Verdict:
    """All that is known about a run: the number of its events, the findings, and what was judged."""

    events: int
    findings: tuple[Finding, ...]
    judged: tuple[Pair, ...] = ()
    not_judged: tuple[NotJudged, ...] = ()

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding, None without findings."""
        return min((finding.severity for finding in self.findings), key=list(Severity).index, default=None)

    @property
    def unseen(self) -> tuple[NotJudged, ...]:
        """The vCPUs that look restored and were not judged."""
        return tuple(one for one in self.not_judged if one.is_restore)

    def as_dict(self) -> dict[str, Any]:
        """Returns the verdict as data for JSON."""
        return {
            "events": self.events,
            "verdict": self.worst or ("clean" if self.judged else "nothing judged"),
            "judged": [asdict(pair) for pair in self.judged],
            "not_judged": [asdict(one) for one in self.not_judged],
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def __str__(self) -> str:
        count = len(self.findings)
        what = f"{count} finding{'s' if count != 1 else ''}" if count else "nothing was lost"
        if not self.events:
            what = "/dev/kvm was never used, so nothing was judged"
        lines = [f"{self.events} events, {what}"]
        return "\n".join(lines + [f"\n{number}. {finding}" for number, finding in enumerate(self.findings, 1)])


def verdict_of(events: int, findings: Iterable[order.Finding]) -> Verdict:
    """Returns the order checker's findings as a verdict."""
    return Verdict(events, tuple(map(_of, findings)))


def _of(found: order.Finding) -> Finding:
    latent = found.kind == "vls-after-finalize"
    data = found.as_dict()
    return Finding(
        kind=found.kind,
        cause=found.kind,
        severity=Severity.LATENT if latent else Severity.LOST,
        vm=found.vm,
        vcpu=found.vcpu,
        losses=tuple(Loss(*loss) for loss in found.losses),
        pair=None,
        title=found.title,
        rule=data["rule"],
        fix=data["fix"],
        text=str(found),
    )
