# SPDX-License-Identifier: MIT
"""Backports: the bugs of a base with these commits, the bugs that each commit fixes, and what would fix the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kvmabi.fpstate.catalogue import ABSENT, REPRODUCES, SEARCH, Bug, Finding, bugs, search
from kvmabi.fpstate.explorer import HOLDS, Explorer
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.parallel import spread
from kvmabi.fpstate.relevance import search_all
from kvmabi.fpstate.variants import Commit, Variant, commits, find_commit


@dataclass(frozen=True)
class Listed:
    """One line of the commit list: its text and the commit it names (None: not in the table)."""

    line: str
    commit: Commit | None


@dataclass(frozen=True)
class Audit:
    """The audit of a backport.

    ``remaining`` are the bugs that the backport has. ``mended`` lists, per commit of the list, the bugs that
    return if only that commit is removed. ``remedies`` lists, per remaining bug, the single further commits
    that remove it, preferring those that break nothing else; an empty tuple means that no single commit of
    the table does.
    """

    base: Variant
    listed: tuple[Listed, ...]
    variant: Variant
    before: tuple[str, ...]
    remaining: tuple[Finding, ...]
    mended: tuple[tuple[Commit, tuple[Finding, ...]], ...]
    remedies: tuple[tuple[str, tuple[Commit, ...]], ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Lines that name no commit of the table; their effect is unknown."""
        return tuple(entry.line for entry in self.listed if entry.commit is None)


def read_list(text: str) -> tuple[Listed, ...]:
    """Parse a list of commits: lines of ``git log --oneline``, ids or titles; "#" starts a comment."""
    entries = []
    for raw in text.splitlines():
        line = raw.strip().lstrip("*").strip()
        if line and not line.startswith("#"):
            entries.append(Listed(line, _commit_of(line)))
    return tuple(entries)


def _commit_of(line: str) -> Commit | None:
    whole = find_commit(line)
    if whole is not None:
        return whole
    head, _, rest = line.partition(" ")
    by_id = find_commit(head) if re.fullmatch(r"[0-9a-f]{7,40}", head) else None
    if by_id is not None:
        return by_id
    # a backport has a different id: match the title, without decorations such as "(tag: v6.6)" or "[PATCH 3/7]"
    title = re.sub(r"^(\([^)]*\)|\[[^]]*\]|\s)+", "", rest)
    return find_commit(title) or find_commit(re.sub(r"^(\[[^]]*\]|UPSTREAM:|BACKPORT:|\s)+", "", line))


def _present(variants: list[Variant], which: list[Bug], processes: int | None) -> dict[str, dict[str, Finding]]:
    """The bugs that reproduce without SME being forced on, by variant name and bug id."""
    jobs = [(bug, v) for v in variants for bug in which if not bug.forced(v)]
    present: dict[str, dict[str, Finding]] = {v.name: {} for v in variants}
    for finding in search_all(jobs, processes):
        if finding.outcome == REPRODUCES:
            present[finding.variant.name][finding.bug.id] = finding
    return present


def audit(base: Variant, listed: tuple[Listed, ...], *, processes: int | None = None) -> Audit:
    """Explore the base with the listed commits, then without each of them, then with each candidate fix."""
    chosen = [entry.commit for entry in listed if entry.commit is not None]
    added = [c for c in dict.fromkeys(chosen) if c.bit not in base.bits]
    variant = Variant("backport", base.title, (), base.plus(*(c.bit for c in added)).bits)
    without = {c.bit: variant.minus(c.bit) for c in added if c.effective}
    present = _present([base, variant, *without.values()], list(bugs().values()), processes)
    remaining = present[variant.name]
    mended = []
    for commit in added:
        if commit.bit in without:
            returning = present[without[commit.bit].name]
            mended.append((commit, tuple(f for b, f in returning.items() if b not in remaining)))
        else:
            mended.append((commit, ()))
    return Audit(
        base,
        listed,
        variant,
        tuple(present[base.name]),
        tuple(remaining.values()),
        tuple(mended),
        tuple(_remedies(variant, list(remaining.values()), processes)),
    )


def _remedies(
    variant: Variant, remaining: list[Finding], processes: int | None
) -> Iterable[tuple[str, tuple[Commit, ...]]]:
    candidates = [c for c in commits().values() if c.effective and c.bit not in variant.bits and c.release != "never"]
    jobs = [(f.bug, variant.plus(c.bit)) for f in remaining for c in candidates]
    outcomes = iter(list(spread(_helps, jobs, processes)))
    for finding in remaining:
        verdicts = [(c, *next(outcomes)) for c in candidates]
        clean = tuple(c for c, absent, other in verdicts if absent and not other)
        yield finding.bug.id, clean or tuple(c for c, absent, _ in verdicts if absent)


def _helps(job: tuple[Bug, Variant]) -> tuple[bool, bool]:
    """Whether the bug is absent, and whether its configuration breaks another observation instead."""
    bug, variant = job
    if search(bug, variant).outcome != ABSENT:
        return False, False
    return True, Explorer(variant, bug.config, select("obs")).run(SEARCH).verdict != HOLDS
