# SPDX-License-Identifier: MIT
"""Findings: the values lost, the events, the rule and the fix; as text and as data for JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

WIDTH = 100
MAX_RUNS = 6


class Kind(NamedTuple):
    """A kind of finding: its title, the rule that was broken, and the fix."""

    title: str
    rule: str
    fix: str


KINDS = {
    "destroyed-by-svcr": Kind(
        "values destroyed by a later SVCR write",
        "a write of SVCR that changes SM resets V, Z, P, FFR, FPSR and FPMR; one that changes ZA loses ZA and ZT0",
        "write svcr before these registers",
    ),
    "za-disabled": Kind(
        "ZA and ZT0 refused while SVCR.ZA = 0",
        "ZA and ZT0 can be accessed only while SVCR.ZA = 1",
        "write svcr before za.h[<n>] and zt0, and check every KVM_SET_ONE_REG for errors",
    ),
    "vls-after-finalize": Kind(
        "vector lengths written after FINALIZE",
        "SVE_VLS and SME_VLS are fixed by KVM_ARM_VCPU_FINALIZE",
        "write sve_vls and sme_vls between KVM_ARM_VCPU_INIT and KVM_ARM_VCPU_FINALIZE",
    ),
    "mode-not-restored": Kind(
        "saved in a mode that was not restored",
        "SVCR decides which registers exist and their sizes: values saved in one mode are valid only in that mode",
        "save svcr too, and restore it before the registers that depend on it",
    ),
    "not-saved": Kind(
        "guest state that the save did not read",
        "the list of registers depends on SVCR and the ID registers: an earlier list may lack some of them",
        "call KVM_GET_REG_LIST for every save, and read every register in the list",
    ),
    "restore-differs": Kind(
        "registers that differ from what was saved",
        "after a restore every register has the value that was saved",
        "restore in this order: vector lengths, FINALIZE, svcr, all other registers; check every ioctl for errors",
    ),
}


class Loss(NamedTuple):
    """One register of a finding: its name and ID, the events involved, and the reason in words."""

    name: str
    id: int
    events: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong on one vCPU: its kind (a key of KINDS) and the registers concerned."""

    kind: str
    vm: int
    vcpu: int
    losses: tuple[Loss, ...]

    @property
    def title(self) -> str:
        """What went wrong, in a line."""
        return KINDS[self.kind].title

    @property
    def registers(self) -> tuple[str, ...]:
        """The names of the registers concerned."""
        return tuple(loss.name for loss in self.losses)

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as data for JSON."""
        kind = KINDS[self.kind]
        return {
            "kind": self.kind,
            "title": kind.title,
            "vm": self.vm,
            "vcpu": self.vcpu,
            "rule": kind.rule,
            "fix": kind.fix,
            "registers": [
                {"name": loss.name, "id": f"{loss.id:#x}", "events": list(loss.events), "why": loss.why}
                for loss in self.losses
            ],
        }

    def __str__(self) -> str:
        kind = KINDS[self.kind]
        count = len(self.losses)
        lines = [f"{kind.title}: {count} register{'s' if count != 1 else ''} of VM {self.vm} vCPU {self.vcpu}"]
        for why, losses in _by_reason(self.losses):
            lines.append(f"  {why} ({_events(losses)})")
            lines += textwrap.wrap(
                " ".join(loss.name for loss in losses), WIDTH, initial_indent="    ", subsequent_indent="    "
            )
        lines += _wrapped("rule: ", kind.rule) + _wrapped("fix:  ", kind.fix)
        return "\n".join(lines)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {label}", subsequent_indent="        ")


def _by_reason(losses: Sequence[Loss]) -> list[tuple[str, list[Loss]]]:
    """Returns the registers grouped by reason, in the order in which the reasons appear."""
    reasons: dict[str, list[Loss]] = {}
    for loss in losses:
        reasons.setdefault(loss.why, []).append(loss)
    return list(reasons.items())


def _events(losses: Sequence[Loss]) -> str:
    """Returns the event numbers of some registers, in runs ("events 12-40, 97")."""
    numbers = sorted({number for loss in losses for number in loss.events})
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    text = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs[:MAX_RUNS])
    if len(runs) > MAX_RUNS:
        text += f" and {len(runs) - MAX_RUNS} more runs"
    return f"event{'s' if len(numbers) != 1 else ''} {text}" if text else "no event"
