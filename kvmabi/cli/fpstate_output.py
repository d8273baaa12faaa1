# SPDX-License-Identifier: MIT
"""The output of ``kvmabi fpstate``: one function per report, as text or JSON."""

from __future__ import annotations

from typing import Any

from kvmabi.errors import UsageError
from kvmabi.fpstate import catalogue, compare, variants
from kvmabi.fpstate.audit import Audit
from kvmabi.fpstate.catalogue import Finding
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.explain import Explanation
from kvmabi.fpstate.explorer import BOUND, HOLDS, Result
from kvmabi.fpstate.render.json_ import dump, trace_dict
from kvmabi.fpstate.render.mermaid import mermaid
from kvmabi.fpstate.render.svg import svg
from kvmabi.fpstate.render.text import text
from kvmabi.fpstate.trace import Trace
from kvmabi.fpstate.variants import Commit, Variant


def picture(trace: Trace, form: str) -> str:
    """A trace as text, json, mermaid or svg."""
    if form == "json":
        return dump(trace_dict(trace))
    return {"text": text, "mermaid": mermaid, "svg": svg}[form](trace)


def _window(variant: Variant) -> str:
    if not variant.window:
        return "no release"
    first, last = variant.window
    return f"{first} on" if not last else first if first == last else f"{first} to {last}"


def variants_dict() -> dict[str, Any]:
    """Presets and commit bits as JSON-ready data."""
    presets = [
        {"name": v.name, "window": list(v.window), "title": v.title, "bits": list(v.bits)}
        for v in variants.presets().values()
    ]
    commits = [
        {"bit": c.bit, "commit": c.id, "title": c.title, "release": c.release, "what": c.what, "sets": dict(c.sets)}
        for c in variants.commits().values()
    ]
    return {"presets": presets, "commits": commits}


def variants_text() -> str:
    """The presets with the bits that each adds to the previous release, then the commit bits."""
    lines = []
    previous: set[str] = set()
    for v in variants.presets().values():
        new = [b for b in v.bits if b not in previous]
        lines.append(f"{v.name:18} {_window(v):12} {v.title}")
        if new:
            lines.append(f"{'':31} + {' '.join(new)}")
        if v.window:
            previous = set(v.bits)
    lines.append("")
    for c in variants.commits().values():
        lines.append(f"{c.bit:18} {c.release:12} {c.id}  {c.title}")
        lines.append(f"{'':31} {c.what}{'' if c.effective else ' (no effect in this model)'}")
    return "\n".join(lines) + "\n"


def variants_report(form: str) -> str:
    """The list of variants."""
    return dump(variants_dict()) if form == "json" else variants_text()


def check(variant: Variant, config: Config, inv: str, result: Result, trace: Trace | None, form: str) -> str:
    """The result of an exploration."""
    if form == "json":
        data = {
            "verdict": result.verdict,
            "bound": result.bound,
            "states": result.states,
            "depth": result.depth,
            "seconds": round(result.seconds, 3),
            "invariants": inv,
            "variant": variant.name,
            "config": config.as_dict(),
            "trace": None if trace is None else trace_dict(trace),
        }
        return dump(data)
    counts = f"{result.states:,} states, depth {result.depth}, {result.seconds:.1f} s"
    if result.verdict == HOLDS:
        return f"{variant.name}: {inv} hold in {config.summary}: exhausted, {counts}\n"
    if result.verdict == BOUND:
        undecided = f"{inv} undecided in {config.summary}: no violation within the bound on {result.bound}"
        return f"{variant.name}: {undecided}: {counts}\n"
    assert trace is not None
    return text(trace) + f"found after {counts}\n"


def _commit_words(commit_id: str) -> str:
    commit = variants.find_commit(commit_id)
    return f"{commit_id} {commit.title}" if commit is not None else commit_id


def finding_dict(result: Finding) -> dict[str, Any]:
    """A bug on a variant as JSON-ready data."""
    bug = result.bug
    return {
        "bug": bug.id,
        "title": bug.title,
        "variant": result.variant.name,
        "outcome": result.outcome,
        "sme_forced": result.forced,
        "introduced": list(bug.introduced),
        "fixed_by": list(bug.fixed_by),
        "releases": bug.releases,
        "observed": bug.observed,
        "trace": None if result.trace is None else trace_dict(result.trace),
    }


def finding(result: Finding) -> str:
    """A bug on a variant: its description, and the timeline if it reproduces."""
    bug, name = result.bug, result.variant.name
    lines = [f"{bug.id}: {bug.title} ({bug.releases})", f"{bug.story}", f"observed: {bug.observed}"]
    if bug.introduced:
        lines.append("introduced by " + " and ".join(_commit_words(c) for c in bug.introduced))
    lines += ["fixed by " + " and ".join(_commit_words(c) for c in bug.fixed_by), ""]
    if result.outcome == catalogue.NOT_APPLICABLE:
        lines.append(f"on {name}: not applicable, this kernel lacks {', '.join(bug.needs)}")
    elif result.trace is None:
        states = result.result.states if result.result else 0
        lines.append(f"on {name}: {result.outcome} ({states:,} states in {bug.config.summary})")
    else:
        forced = ", with SME forced on although this kernel cannot select it" if result.forced else ""
        lines += [f"on {name}: reproduces{forced}", text(result.trace).rstrip("\n")]
    return "\n".join(lines) + "\n"


def diff_dict(first: Trace, second: Trace, stops: tuple[str, str]) -> dict[str, Any]:
    """Two runs of the same events as JSON-ready data."""
    return {
        "variants": [first.variant.name, second.variant.name],
        "stopped": list(stops),
        "observed": [[b.text for b in t.observation] for t in (first, second)],
        "differences": [
            {"step": d.number, "event": d.event, "fields": {f: [a, b] for f, a, b in d.fields}}
            for d in compare.differences(first, second)
        ],
    }


def explanation(of: Explanation, form: str) -> str:
    """The events that read and write a field."""
    if form == "json":
        return dump({"field": of.field, "variant": of.variant.name, "reads": of.reads, "writes": of.writes})
    lines = [f"{of.field}: {of.meaning}", f"in {of.variant.name}, observed on a long random run:"]
    for word, table in (("read", of.reads), ("changed", of.writes)):
        lines += [f"  {word} in a {kind} by {', '.join(names)}" for kind, names in table.items()]
        if not table:
            lines.append(f"  never {word}")
    return "\n".join(lines) + "\n"


def _named(commit: Commit) -> str:
    return f"{commit.id} {commit.title}"


def audit_dict(audit: Audit) -> dict[str, Any]:
    """A backport's audit as JSON-ready data."""
    return {
        "base": audit.base.name,
        "bits": list(audit.variant.bits),
        "unknown": list(audit.unknown),
        "base_has": list(audit.before),
        "remaining": [finding_dict(f) for f in audit.remaining],
        "mended_by": {c.id: [finding_dict(f) for f in fixed] for c, fixed in audit.mended},
        "remedies": {bug: [c.id for c in helps] for bug, helps in audit.remedies},
    }


def audit_report(audit: Audit, form: str) -> str:
    """A backport's audit."""
    if form == "json":
        return dump(audit_dict(audit))
    if form != "text":
        raise UsageError(f"audit has no format {form!r}")
    modelled = [entry.commit for entry in audit.listed if entry.commit is not None]
    lines = [f"{audit.base.name} with {len(modelled)} of {len(audit.listed)} listed commits known to the model"]
    lines += [f"  not in the table, effect unknown: {line}" for line in audit.unknown]
    lines.append(f"{audit.base.name} itself has: {', '.join(audit.before) or 'none of the catalogued bugs'}")
    lines += ["", "what each commit fixes (bugs that return if only this one is removed):"]
    for commit, fixed in audit.mended:
        ids = ", ".join(f.bug.id for f in fixed)
        nothing = "no effect in this model" if not commit.effective else "no catalogued bug"
        lines.append(f"  {_named(commit)}: {ids or nothing}")
    lines += ["", "what remains: " + (", ".join(f.bug.id for f in audit.remaining) or "none of the catalogued bugs")]
    remedies = dict(audit.remedies)
    for finding_ in audit.remaining:
        helps = remedies[finding_.bug.id]
        cure = " or ".join(_named(c) for c in helps) or "no single commit of the table"
        lines.append(f"  {finding_.bug.id}: {finding_.bug.title}; removed by {cure}")
    for commit, fixed in audit.mended:
        for returning in fixed:
            assert returning.trace is not None
            bug = returning.bug
            lines += ["", f"without {_named(commit)}, {bug.id}: {bug.title} ({bug.releases})", bug.story]
            lines.append(text(returning.trace).rstrip("\n"))
    return "\n".join(lines) + "\n"
