# SPDX-License-Identifier: MIT
"""The kernel differences that a configuration can observe. Kernels that agree on them need one search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from kvmabi.fpstate.catalogue import NOT_APPLICABLE, Bug, Finding, search
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.parallel import spread
from kvmabi.fpstate.variants import Knobs, Variant

_KVM = (
    *("hyp_saves_host", "hyp_saves_host_sve", "sticky", "host_zen_restore", "host_smen_restore", "kvm"),
    *("prepare_sets_type", "prepare_live_only", "kvm_to_save", "kvm_tif", "owner_percpu", "pkvm_eager", "eager_zcr"),
)
_ONLY_IF: tuple[tuple[Callable[[Config], bool], tuple[str, ...]], ...] = (
    (lambda c: c.vcpus > 0, _KVM),
    (lambda c: c.pkvm, ("pkvm_eager",)),
    (lambda c: c.neon or c.softirq, ("kern", "kswitch", "klazy")),
    (lambda c: c.signal, ("sig_by_type", "sig_saveflush", "sig_smstop")),
    (lambda c: c.prctl_vl, ("vl_by_type",)),
    (lambda c: c.smc, ("smc_hint",)),
    (lambda c: c.execve, ("exec_fpmr",)),
    (lambda c: c.clone, ("clone_by_type", "clone_clears_sm")),
    (lambda c: c.fpmr, ("fpmr_order",)),
    (lambda c: c.sme, ("accfix_sme",)),
    (lambda c: c.sve, ("accfix_sve",)),
    (lambda c: c.rt, ("rt_safe",)),
    (lambda c: c.svc_window, ("svc_unmasked",)),
    (lambda c: False, ("sme", "sme_code", "fpmr")),  # decides whether a search applies, not its result
)
_DEFAULTS = {f.name: f.default for f in fields(Knobs)}


def relevant(knobs: Knobs, config: Config) -> Knobs:
    """The knobs, with those that no event of the configuration reads set to their defaults."""
    unasked = [name for needed, names in _ONLY_IF if not needed(config) for name in names]
    plain: dict[str, Any] = {name: _DEFAULTS[name] for name in unasked}
    return replace(knobs, **plain)


def _search(job: tuple[Bug, Variant]) -> Finding:
    return search(*job)


def search_all(jobs: Sequence[tuple[Bug, Variant]], processes: int | None = None) -> Iterable[Finding]:
    """The findings of all jobs, in order, computed on all cores. Each distinct search runs once."""
    asked: dict[object, tuple[Bug, Variant]] = {}
    for bug, variant in jobs:
        if bug.applies(variant):
            asked.setdefault((bug.id, relevant(variant.knobs, bug.config)), (bug, variant))
    answers = dict(zip(asked, spread(_search, list(asked.values()), processes), strict=True))
    for bug, variant in jobs:
        if not bug.applies(variant):
            yield Finding(bug, variant, NOT_APPLICABLE)
            continue
        finding = answers[bug.id, relevant(variant.knobs, bug.config)]
        trace = finding.trace and replace(finding.trace, variant=variant)
        yield replace(finding, variant=variant, forced=bug.forced(variant), trace=trace)
