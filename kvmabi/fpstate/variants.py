# SPDX-License-Identifier: MIT
"""Kernels as sets of commit bits, and the knobs that the bits set (variants.toml)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from kvmabi.errors import UsageError
from kvmabi.fpstate.config import builtin


@dataclass(frozen=True)
class Knobs:
    """The settings that transitions read. The defaults are Linux 5.13 to 5.16, without any commit bit."""

    hyp_saves_host: bool = True  # hyp saves the host's V at the guest's FP trap
    hyp_saves_host_sve: bool = True
    sticky: bool = False  # vcpu_load never clears HOST_SVE_ENABLED
    host_zen_restore: bool = True  # vcpu_put sets ZEN to what vcpu_load saw
    host_smen_restore: bool = True
    rt_safe: bool = False  # NEON sections are not preemptible on PREEMPT_RT either
    sme_code: bool = False
    sme: bool = False  # SME can be selected
    kvm: str = "tif"  # tif, prepare, prop0121, saveflush: what vcpu_load does with the host's state
    prepare_sets_type: bool = True
    prepare_live_only: bool = False
    fp_type: bool = False
    kvm_to_save: bool = False
    kvm_tif: bool = True
    load_by_type: bool = False
    syscall_keeps_sve: bool = False
    in_syscall: str = "none"  # none, syscallno, to_save: how a save detects a system call
    svc_unmasked: bool = False
    kern: bool = False
    kswitch: str = "none"  # none, flag_only, flush_after, flush_before
    klazy: bool = False
    sig_by_type: bool = False
    sig_saveflush: bool = False
    sig_smstop: str = "live"  # live, memory
    fpmr: bool = False
    fpmr_order: str = "none"  # none, first, last
    owner_percpu: bool = False
    pkvm_eager: bool = False
    accfix_sve: bool = False
    accfix_sme: bool = False
    smc_hint: bool = True
    eager_zcr: bool = False
    exec_fpmr: bool = False
    clone_by_type: bool = False
    clone_clears_sm: bool = False
    vl_by_type: bool = False


@dataclass(frozen=True)
class Commit:
    """A commit of the table, with its bit name and the knobs that it sets."""

    bit: str
    id: str
    title: str
    release: str
    what: str
    sets: tuple[tuple[str, Any], ...]

    @property
    def effective(self) -> bool:
        """Whether the commit changes anything in this model."""
        return bool(self.sets)


@dataclass(frozen=True)
class Variant:
    """A kernel: its name and its commit bits, in the order of the table."""

    name: str
    title: str
    window: tuple[str, ...]
    bits: tuple[str, ...]

    @functools.cached_property
    def knobs(self) -> Knobs:
        """The knobs that its commits set."""
        changes: dict[str, Any] = {}
        for commit in commits().values():
            if commit.bit in self.bits:
                changes |= dict(commit.sets)
        return replace(Knobs(), **changes)

    def plus(self, *bits: str) -> Variant:
        """The kernel with these commits added."""
        return self._changed("+", bits, {*self.bits, *bits})

    def minus(self, *bits: str) -> Variant:
        """The kernel with these commits removed."""
        return self._changed("-", bits, set(self.bits) - set(bits))

    def _changed(self, sign: str, changed: Iterable[str], bits: set[str]) -> Variant:
        name = self.name + "".join(f"{sign}{b}" for b in changed)
        return Variant(name, self.title, (), tuple(b for b in commits() if b in bits))


@functools.cache
def commits() -> dict[str, Commit]:
    """All commit bits, by bit name, oldest first."""
    result = {}
    for row in builtin("variants.toml").rows("commit"):
        row.only((field.name for field in fields(Knobs)), "sets")
        bit = row.text("bit")
        sets = tuple(row.sub("sets").items())
        result[bit] = Commit(bit, row.text("id"), row.text("title"), row.text("release"), row.text("what"), sets)
    return result


@functools.cache
def presets() -> dict[str, Variant]:
    """All named variants, in the order of the file."""
    result: dict[str, Variant] = {}
    for row in builtin("variants.toml").rows("preset"):
        bits = set(row.texts("adds", commits()))
        if "base" in row.table:
            bits |= {*result[row.one_of("base", result)].bits}
        ordered = tuple(b for b in commits() if b in bits)
        result[row.text("name")] = Variant(row.text("name"), row.text("title"), row.texts("window"), ordered)
    return result


def releases() -> dict[str, Variant]:
    """The presets that stand for mainline releases."""
    return {n: v for n, v in presets().items() if v.window}


def default_variant() -> Variant:
    """The newest mainline kernel of the table."""
    return list(releases().values())[-1]


def find_commit(text: str) -> Commit | None:
    """The commit bit that an id (at least 7 hex digits), a bit name or an exact title names."""
    text = text.strip()
    if text in commits():
        return commits()[text]
    hexadecimal = re.fullmatch(r"[0-9a-f]{7,40}", text) is not None
    for commit in commits().values():
        if hexadecimal and (commit.id.startswith(text) or text.startswith(commit.id)):
            return commit
        if commit.title.casefold() == text.casefold():
            return commit
    return None


def _version(text: str) -> tuple[int, int] | None:
    release = re.fullmatch(r"v?(\d+)\.(\d+)(?:[.-].*)?", text)
    return (int(release[1]), int(release[2])) if release else None


def find_variant(text: str) -> Variant:
    """Parse a variant: a preset ("v6.8"), a release ("v6.6"), with changes ("v6.16-klazy", "v6.6+e92bee9f861b")."""
    text = text.strip()
    if text in presets():
        return presets()[text]
    head = re.match(r"[^+]*", text)
    base, rest = (head[0] if head else text), ""
    while base and base not in presets() and _release(base) is None:
        base = base[: max(base.rfind("+"), base.rfind("-"), 0)]
    if not base:
        raise UsageError(f"no variant {text!r}: name a preset ({', '.join(presets())}) or a release from v5.13 on")
    rest = text[len(base) :]
    variant = presets().get(base) or _release(base)
    assert variant is not None
    for sign, word in re.findall(r"([+-])([^+-]+)", rest):
        commit = find_commit(word)
        if commit is None:
            raise UsageError(f"{text!r}: no commit {word!r} in the table (kvmabi fpstate variants lists them)")
        variant = variant.plus(commit.bit) if sign == "+" else variant.minus(commit.bit)
    return variant


def _release(text: str) -> Variant | None:
    version = _version(text)
    if version is None or not re.fullmatch(r"v?\d+\.\d+(\.\d+)?", text):
        return None
    for variant in releases().values():
        first, last = variant.window
        low, high = _version(first), _version(last) or (99, 0)
        if low is not None and low <= version <= high:
            # a preset is the first release of its window; later releases can already have some of the next bits
            early = {c.bit for c in commits().values() if (_version(c.release) or (99, 0)) <= version}
            bits = tuple(b for b in commits() if b in early or b in variant.bits)
            return Variant(text if text.startswith("v") else "v" + text, variant.title, (), bits)
    return None
