# SPDX-License-Identifier: MIT
"""Saves and restores a vCPU as a VMM does: the steps save, restore and same of the cases' language."""

from __future__ import annotations

from collections.abc import Iterable

from kvmabi import regid, uapi
from kvmabi.conformance.language import group
from kvmabi.errors import UsageError
from kvmabi.model.plan import Plan, Stage
from kvmabi.profiles import sysregs
from kvmabi.steps.backends.base import Backend
from kvmabi.steps.grammar import MAX_IDS

Saved = dict[int, str]
"""Register IDs, in the order of the list, and the bytes of each."""


def save(backend: Backend, vcpu: str) -> tuple[str, Saved]:
    """Read every listed register; returns OK or what failed, and the values read."""
    (listed,) = backend.answers([f"L {vcpu} {MAX_IDS}"])
    result, _, rest = listed.partition(" ")
    if result != "OK":
        return result, {}
    ids = [int(id, 16) for id in rest.split()[1:]]
    answers = backend.answers(f"G {vcpu} {id:x}" for id in ids)
    read = {id: answer[3:] for id, answer in zip(ids, answers, strict=True) if answer.startswith("OK ")}
    return _refusals(zip(ids, answers, strict=True)), read


def restore(backend: Backend, vcpu: str, saved: Saved, first: Iterable[str]) -> str:
    """Write the saved values, the registers named ``first`` before the others; returns OK or what failed."""
    names = list(first)
    early = [id for name in names for id in saved if name in (group(id), regid.name_of(id))]
    ids = [*early, *(id for id in saved if id not in set(early))]
    answers = backend.answers(f"S {vcpu} {id:x} {saved[id]}" for id in ids)
    return _refusals(zip(ids, answers, strict=True))


def restore_planned(backend: Backend, vcpu: str, saved: Saved) -> str:
    """All that the plan has after INIT: vector lengths, FINALIZE, svcr, all else; returns OK or what failed."""
    steps = [step for step in Plan.of(saved).steps() if step.stage is not Stage.INIT]
    answers = backend.answers(
        f"F {vcpu} {uapi.KVM_ARM_VCPU_VEC}" if step.id is None else f"S {vcpu} {step.id:x} {saved[step.id]}"
        for step in steps
    )
    failed = [answer for step, answer in zip(steps, answers, strict=True) if step.id is None and answer != "OK"]
    sets = [(step.id, answer) for step, answer in zip(steps, answers, strict=True) if step.id is not None]
    return failed[0] if failed else _refusals(sets)


def same(backend: Backend, vcpu: str, saved: Saved, excluded: Iterable[str]) -> str:
    """Compare a vCPU with the saved values; returns OK, or which banks differ."""
    skipped, running = set(excluded), sysregs.free_running_ids()
    ids = [id for id in saved if not {group(id), regid.name_of(id)} & skipped and id not in running]
    answers = backend.answers(f"G {vcpu} {id:x}" for id in ids)
    different = dict.fromkeys(group(id) for id, answer in zip(ids, answers, strict=True) if answer != f"OK {saved[id]}")
    return f"differ {' '.join(different)}" if different else "OK"


def do(backend: Backend, step: str, saved: dict[str, Saved]) -> str:
    """Do a macro's line; UsageError if it is malformed."""
    what, *words = step.split()
    if len(words) < 2:
        raise UsageError(f"{step!r} lacks {'a name' if words else 'a vCPU and a name'}")
    vcpu, name, *rest = words
    if what == "save":
        answer, saved[name] = save(backend, vcpu)
        return answer
    if name not in saved:
        raise UsageError(f"{step!r}: nothing was saved as {name}")
    if what == "restore" and rest == ["plan"]:
        return restore_planned(backend, vcpu, saved[name])
    names = rest[1].split(",") if len(rest) == 2 and rest[0] in ("first", "but") else []
    if len(names) == 0 and rest:
        raise UsageError(f"{step!r}: after the name comes 'plan', 'first' or 'but' and registers, or nothing")
    return restore(backend, vcpu, saved[name], names) if what == "restore" else same(backend, vcpu, saved[name], names)


def _refusals(answers: Iterable[tuple[int, str]]) -> str:
    """Returns OK, or each errno with the banks that failed with it, in order of occurrence."""
    refused: dict[str, dict[str, None]] = {}
    for id, answer in answers:
        result = answer.split()[0]
        if result != "OK":
            refused.setdefault(result, {})[group(id)] = None
    return "; ".join(f"{result} {' '.join(banks)}" for result, banks in refused.items()) or "OK"
