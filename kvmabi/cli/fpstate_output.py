# SPDX-License-Identifier: MIT
"""What ``kvmabi fpstate`` prints: one function a report, as text or JSON."""

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
    """Presets with what they add to the one before, then the commit bits."""
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
        lines.append(f"{'':31} {c.what}{'' if c.effective else ' (nothing of this protocol)'}")
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
        gave_up = f"nothing found in {config.summary}, but gave up at the bound on {result.bound}"
        return f"{variant.name}: {gave_up}: {counts}\n"
    assert trace is not None
    return text(trace) + f"found after {counts}\n"


def _commit_words(commit_id: str) -> str:
    commit = variants.find_commit(commit_id)
    return f"{commit_id} {commit.title}" if commit is not None else commit_id


def finding_dict(found: Finding) -> dict[str, Any]:
    """A bug on a variant as JSON-ready data."""
    bug = found.bug
    return {
        "bug": bug.id,
        "title": bug.title,
        "variant": found.variant.name,
        "outcome": found.outcome,
        "sme_forced": found.forced,
        "introduced": list(bug.introduced),
        "fixed_by": list(bug.fixed_by),
        "releases": bug.releases,
        "observed": bug.observed,
        "trace": None if found.trace is None else trace_dict(found.trace),
    }


def finding(found: Finding) -> str:
    """A bug on a variant: what it is, and the timeline if it is there."""
    bug, name = found.bug, found.variant.name
    lines = [f"{bug.id}: {bug.title} ({bug.releases})", f"{bug.story}", f"observed: {bug.observed}"]
    if bug.introduced:
        lines.append("introduced by " + " and ".join(_commit_words(c) for c in bug.introduced))
    lines += ["fixed by " + " and ".join(_commit_words(c) for c in bug.fixed_by), ""]
    if found.outcome == catalogue.NOT_APPLICABLE:
        lines.append(f"on {name}: not applicable, this kernel lacks {', '.join(bug.needs)}")
    elif found.trace is None:
        states = found.result.states if found.result else 0
        lines.append(f"on {name}: {found.outcome} ({states:,} states in {bug.config.summary})")
    else:
        forced = ", with SME forced on although this kernel cannot select it" if found.forced else ""
        lines += [f"on {name}: reproduces{forced}", text(found.trace).rstrip("\n")]
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


def explanation(found: Explanation, form: str) -> str:
    """What touches a piece of state."""
    if form == "json":
        return dump({"field": found.field, "variant": found.variant.name, "reads": found.reads, "writes": found.writes})
    lines = [f"{found.field}: {found.meaning}", f"in {found.variant.name}, as seen on a long random run:"]
    for word, table in (("read", found.reads), ("changed", found.writes)):
        lines += [f"  {word} in a {kind} by {', '.join(names)}" for kind, names in table.items()]
        if not table:
            lines.append(f"  never {word}")
    return "\n".join(lines) + "\n"


def _named(commit: Commit) -> str:
    return f"{commit.id} {commit.title}"


def audit_dict(found: Audit) -> dict[str, Any]:
    """A backport's audit as JSON-ready data."""
    return {
        "base": found.base.name,
        "bits": list(found.variant.bits),
        "unknown": list(found.unknown),
        "base_has": list(found.before),
        "remaining": [finding_dict(f) for f in found.remaining],
        "mended_by": {c.id: [finding_dict(f) for f in there] for c, there in found.mended},
        "remedies": {bug: [c.id for c in helps] for bug, helps in found.remedies},
    }


def audit_report(found: Audit, form: str) -> str:
    """A backport's audit."""
    if form == "json":
        return dump(audit_dict(found))
    if form != "text":
        raise UsageError(f"audit has no format {form!r}")
    known = [entry.commit for entry in found.listed if entry.commit is not None]
    lines = [f"{found.base.name} with {len(known)} of {len(found.listed)} listed commits known to the model"]
    lines += [f"  not in the table, nothing known about it: {line}" for line in found.unknown]
    lines.append(f"{found.base.name} itself has: {', '.join(found.before) or 'none of the catalogued bugs'}")
    lines += ["", "what each commit keeps away (without it, with all the others):"]
    for commit, there in found.mended:
        what = ", ".join(f.bug.id for f in there)
        nothing = "nothing of this protocol" if not commit.effective else "no catalogued bug"
        lines.append(f"  {_named(commit)}: {what or nothing}")
    lines += ["", "what remains: " + (", ".join(f.bug.id for f in found.remaining) or "none of the catalogued bugs")]
    remedies = dict(found.remedies)
    for finding_ in found.remaining:
        helps = remedies[finding_.bug.id]
        cure = " or ".join(_named(c) for c in helps) or "no single commit of the table"
        lines.append(f"  {finding_.bug.id}: {finding_.bug.title}; removed by {cure}")
    for commit, there in found.mended:
        for mended in there:
            assert mended.trace is not None
            bug = mended.bug
            lines += ["", f"without {_named(commit)}, {bug.id}: {bug.title} ({bug.releases})", bug.story]
            lines.append(text(mended.trace).rstrip("\n"))
    return "\n".join(lines) + "\n"
