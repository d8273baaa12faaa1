# SPDX-License-Identifier: MIT
"""What the results of many files say together: how many are whole, and which rules are broken where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from kvmabi.fleet.task import Result

MOST_FILES = 5
"""How many files of each rule are named as a sample."""
MOST_GROUPS = 256
"""How many hosts and kernels are counted separately: files name them, so there may be one for each file."""
OTHERS = "(others)"


@dataclass
class Summary:
    """Counts over results. ``rules`` are files by rule and severity, ``samples`` the first files of each rule.

    ``places`` counts findings by rule, host and kernel. A file counts once for each rule that it breaks. ``failures``
    are files with a finding whose severity is in ``failing``, and those that could not be judged.
    """

    failing: frozenset[str]
    files: int = 0
    failures: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Count one result."""
        self.files += 1
        self.statuses[result["status"]] += 1
        broken = {(finding["rule"], finding["severity"]) for finding in result["findings"]}
        if result["status"] in ("unreadable", "failed"):
            broken.add((result["status"], "error"))
        for rule, severity in sorted(broken):
            self.rules[rule, severity] += 1
            place = rule, result["host"] or "?", result["kernel"] or "?"
            self.places[
                place if place in self.places or len(self.places) < MOST_GROUPS else (rule, OTHERS, OTHERS)
            ] += 1
            sample = self.samples.setdefault(rule, [])
            if len(sample) < MOST_FILES:
                sample.append(result["url"])
        self.failures += any(severity in self.failing for _, severity in broken)

    @property
    def percent(self) -> float:
        """The share of files that fail."""
        return 100 * self.failures / max(self.files, 1)

    def as_dict(self) -> dict[str, Any]:
        """The summary for machines."""
        return {
            "files": self.files,
            "failures": self.failures,
            "statuses": dict(sorted(self.statuses.items())),
            "rules": [
                {"rule": rule, "severity": severity, "files": count, "sample": self.samples[rule]}
                for (rule, severity), count in self.rules.most_common()
            ],
            "places": [
                {"rule": rule, "host": host, "kernel": kernel, "files": count}
                for (rule, host, kernel), count in self.places.most_common()
            ],
        }

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        lines = [f"{self.files} files: {statuses}"]
        for (rule, severity), count in self.rules.most_common():
            lines.append(f"{severity:8} {count:8} {rule}, such as {self.samples[rule][0]}")
            for place, times in self.places.most_common():
                if place[0] == rule and place[1:] != ("?", "?"):
                    lines.append(f"         {times:8}   host {place[1]}, kernel {place[2]}")
        return "\n".join(lines)
