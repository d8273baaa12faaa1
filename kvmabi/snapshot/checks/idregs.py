# SPDX-License-Identifier: MIT
"""ID registers that the target refuses: which field, which value, and which rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kvmabi import regid
from kvmabi.profiles import idnames, idregs
from kvmabi.profiles.idregs import Field
from kvmabi.snapshot.checks.case import Case
from kvmabi.snapshot.checks.findings import Seen
from kvmabi.snapshot.target import Trial

RULES = {
    idregs.LOWER_SAFE: "a value that is not higher is safe",
    idregs.HIGHER_SAFE: "a value that is not lower is safe",
    idregs.HIGHER_OR_ZERO_SAFE: "0, or a value that is not lower, is safe",
    idregs.EXACT: "only {exact:#x} or the target's value is safe",
}
FIXED = "the target's kernel does not let it be changed"


class Wrong(NamedTuple):
    """A field that the target refuses: the values in the file and at the target, the rule's name and in words."""

    field: Field
    file: int
    target: int
    rule: str
    words: str

    def __str__(self) -> str:
        rule = f"{self.rule}: " if self.rule else ""
        return (
            f"{idnames.label(self.field)}: the file has {self.file:#x}, the target {self.target:#x}; {rule}{self.words}"
        )


def check(case: Case) -> Iterator[Seen]:
    """Every feature ID register that the target refuses, with its fields."""
    trial, system = case.trial, case.target.system
    if trial is None or system is None:
        return
    for id in trial.refused:
        register = system.sysreg_by_id.get(id)
        if register is None or register.rule not in idnames.FEATURE_RULES:
            continue
        value = case.vcpu.value(id)
        wrong = wrong_fields(case, trial, id, value or 0)
        details = [
            {
                "register": regid.name_of(id),
                "field": idnames.name_of(each.field),
                "bits": each.field.place,
                "file": each.file,
                "target": each.target,
                "rule": each.rule or "fixed",
            }
            for each in wrong
        ]
        text = "\n".join(map(str, wrong)) or trial.refused[id].reason
        yield Seen("id-field", text, (id,), tuple(details))


def wrong_fields(case: Case, trial: Trial, id: int, value: int) -> list[Wrong]:
    """The fields of an ID register's value that a set on the target refuses, the highest first.

    The order of the rules is the kernel's (kvmabi/model/idreg.py), but every field is reported, not the first.
    """
    system = case.target.system
    assert system is not None
    switches, limit = system.kernel.switches, trial.before[id]
    for field in idregs.impdef(id):
        if switches.impdef_pmu_is_none and field.get(value) == field.most:
            value &= ~field.mask
    wrong = {}
    for demand in idregs.demands(id):
        if demand.applies(trial.features, switches) and not demand.met(value):
            least = f"the kernel insists on {demand.least:#x} or more{' or 0' if demand.or_zero else ''}"
            wrong[demand.field.lsb] = Wrong(demand.field, demand.field.get(value), demand.field.get(limit), "", least)
    writable = system.kernel.writable_masks.get(id, 0) & idregs.field_bits(id)
    for field in idregs.fields(id):
        mine, theirs = field.get(value), field.get(limit)
        if mine == theirs or field.lsb in wrong:
            continue
        if field.mask & (value ^ limit) & ~writable:
            wrong[field.lsb] = Wrong(field, mine, theirs, "", FIXED)
        elif not field.safe(value, limit):
            wrong[field.lsb] = Wrong(field, mine, theirs, field.rule, RULES[field.rule].format(exact=field.exact))
    return [wrong[lsb] for lsb in sorted(wrong, reverse=True)]
