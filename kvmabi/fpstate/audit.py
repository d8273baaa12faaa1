# SPDX-License-Identifier: MIT
"""Backports: which bugs a base with these commits has, what each commit mends, what would mend the rest."""

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
    """One line of the list of commits: its text, and the commit it names (None: not in the table)."""

    line: str
    commit: Commit | None


@dataclass(frozen=True)
class Audit:
    """What a backport amounts to.

    ``remaining`` are the bugs it has, ``mended`` what each listed commit keeps away: without it (and with
    all others) those bugs are there. ``remedies`` says per remaining bug which single further commits
    remove it, preferring those that put nothing else wrong in its place; the empty tuple means that it
    takes more than one of the table's commits.
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
        """Lines that name no commit of the table: nothing is known about their effect."""
        return tuple(entry.line for entry in self.listed if entry.commit is None)


def read_list(text: str) -> tuple[Listed, ...]:
    """Commits as ``git log --oneline`` prints them, or ids, or titles; "#" starts a comment."""
    found = []
    for raw in text.splitlines():
        line = raw.strip().lstrip("*").strip()
        if line and not line.startswith("#"):
            found.append(Listed(line, _commit_of(line)))
    return tuple(found)


def _commit_of(line: str) -> Commit | None:
    whole = find_commit(line)
    if whole is not None:
        return whole
    head, _, rest = line.partition(" ")
    by_id = find_commit(head) if re.fullmatch(r"[0-9a-f]{7,40}", head) else None
    if by_id is not None:
        return by_id
    # a backport has another id: go by title, without decorations such as "(tag: v6.6)" or "[PATCH 3/7]"
    title = re.sub(r"^(\([^)]*\)|\[[^]]*\]|\s)+", "", rest)
    return find_commit(title) or find_commit(re.sub(r"^(\[[^]]*\]|UPSTREAM:|BACKPORT:|\s)+", "", line))


def _present(variants: list[Variant], which: list[Bug], processes: int | None) -> dict[str, dict[str, Finding]]:
    """Findings that reproduce without forcing SME on, by variant name and bug."""
    jobs = [(bug, v) for v in variants for bug in which if not bug.forced(v)]
    found: dict[str, dict[str, Finding]] = {v.name: {} for v in variants}
    for finding in search_all(jobs, processes):
        if finding.outcome == REPRODUCES:
            found[finding.variant.name][finding.bug.id] = finding
    return found


def audit(base: Variant, listed: tuple[Listed, ...], *, processes: int | None = None) -> Audit:
    """Explore the base with the listed commits, without each of them, and with each that might help."""
    chosen = [entry.commit for entry in listed if entry.commit is not None]
    added = [c for c in dict.fromkeys(chosen) if c.bit not in base.bits]
    variant = Variant("backport", base.title, (), base.plus(*(c.bit for c in added)).bits)
    without = {c.bit: variant.minus(c.bit) for c in added if c.effective}
    found = _present([base, variant, *without.values()], list(bugs().values()), processes)
    remaining = found[variant.name]
    mended = []
    for commit in added:
        if commit.bit in without:
            there = found[without[commit.bit].name]
            mended.append((commit, tuple(f for b, f in there.items() if b not in remaining)))
        else:
            mended.append((commit, ()))
    return Audit(
        base,
        listed,
        variant,
        tuple(found[base.name]),
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
    """Whether the bug is gone, and whether something else goes wrong instead where it was."""
    bug, variant = job
    if search(bug, variant).outcome != ABSENT:
        return False, False
    return True, Explorer(variant, bug.config, select("obs")).run(SEARCH).verdict != HOLDS
