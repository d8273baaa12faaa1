# SPDX-License-Identifier: MIT
"""The lines of a case: steps with names in place of numbers, and the answers they must get.

A line is ``STEP -> ANSWER``; without an answer it must be OK. Steps are those of
kvmabi.steps.grammar, but for what is said here:

==============================  =================================================================================
I V FEATURES [target N]         feature names of the kernel's profile joined by +, ``ptrauth`` for both of the pair,
                                ``bit20``, ``none``; the target is the preferred one
i V FEATURES word N value       the same, and another word of the features
F V [N]                         FINALIZE of KVM_ARM_VCPU_VEC, or of another feature
G V REG, S V REG VALUE, ...     REG: a register's name, ``z*``, ``p*``, ``v*`` or ``za*`` (the rows that the host's
                                longest vector length has) for one step each, an id in 0x..., with ``+N`` added or
                                ``@N`` as its size in bytes. VALUE: see kvmabi.conformance.values; seeds rise by one
                                from register to register of a bank
L V [N], l V N M                N and M are numbers or what an answer was called, ``$all-1``
X F IOCTL ARG, A F IOCTL        the ioctl by its name
save V NAME                     read every register of the list, in its order
restore V NAME [first R,R...]   write them to a vCPU in that order, some of them first
same V NAME [but R,R...]        read them from a vCPU and compare, but for running counters
==============================  =================================================================================

Answers are an errno's name or OK, and after it: a value; ``n`` or ``$name``, a number or bytes, which get that name
where it is new and must equal it elsewhere; for lists ``with R R ... without R R ...``. ``any`` is any answer,
``ENOENT|EINVAL`` one of several. save, restore and same answer OK, or what went wrong: ``EBUSY za zt0; EPERM sve_vls``,
``differ z p``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from kvmabi import regid, uapi
from kvmabi.conformance import values
from kvmabi.errors import UsageError
from kvmabi.profiles import Kernel
from kvmabi.steps.hostfeatures import HostFeatures

ARROW = " -> "
MACROS = ("save", "restore", "same")
BANKS = {"z*": ("z{}", 32), "p*": ("p{}", 16), "v*": ("v{}", 32)}
PAIRS = {"ptrauth": ("ptrauth_address", "ptrauth_generic")}
REGISTER_STEPS = frozenset("GSPBbgs")
SEEDED = {"P": 0, "s": 1}  # which word after the register is a seed
RUNNING = ("ptimer_cnt", "timer_cnt")
SIZE = re.compile(r"(.+)@(\d+)")
SUM = re.compile(r"(.+?)\+(0x[0-9a-f]+|\d+)")


class Line(NamedTuple):
    """A line of a case: what is to be done, and what must come of it."""

    step: str
    answer: str


class Concrete(NamedTuple):
    """One step for a backend, the answer it must get, and the size in bytes of the register that it names (0: none)."""

    step: str
    answer: str
    size: int = 0


def parse(text: str) -> list[Line]:
    """The lines of a case; ``#`` starts a comment."""
    lines = []
    for raw in text.splitlines():
        line = " ".join(raw.partition("#")[0].split())
        if line:
            step, _, answer = line.partition(ARROW)
            lines.append(Line(step.strip(), answer.strip() or "OK"))
    return lines


def needed_features(names: str) -> tuple[str, ...]:
    """The vCPU features that ``sve+ptrauth`` names."""
    if names == "none":
        return ()
    return tuple(feature for name in names.split("+") for feature in PAIRS.get(name, (name,)))


def features_word(names: str, kernel: Kernel) -> int:
    """The first word of features; UsageError for a name that the kernel's profile does not have."""
    word = 0
    for name in needed_features(names):
        if name in kernel.features:
            word |= 1 << kernel.features[name].bit
        elif name.startswith("bit") and name[3:].isdecimal():
            word |= 1 << int(name[3:])
        elif name.startswith("0x"):
            word |= int(name, 16)
        else:
            raise UsageError(f"kernel {kernel.name} has no vCPU feature {name!r}")
    return word


def registers(text: str, host_features: HostFeatures) -> list[int]:
    """The ids that a register's name in a case stands for."""
    if text == "za*":
        return [uapi.KVM_REG_ARM64_SME_ZAHREG(n, 0) for n in range(values.number("sme_vl", host_features))]
    if text in BANKS:
        form, count = BANKS[text]
        return [regid.parse(form.format(n)) for n in range(count)]
    if match := SIZE.fullmatch(text):
        (id,) = registers(match[1], host_features)
        log2 = int(match[2]).bit_length() - 1
        return [id & ~uapi.KVM_REG_SIZE_MASK | log2 << uapi.KVM_REG_SIZE_SHIFT]
    if match := SUM.fullmatch(text):
        (id,) = registers(match[1], host_features)
        return [(id + int(match[2], 0)) % (1 << 64)]
    return [regid.parse(text)]


def concrete(line: Line, host_features: HostFeatures, kernel: Kernel) -> list[Concrete]:
    """The steps that a line stands for; UsageError or ValueError if it is none. Macros are not for this."""
    op, *words = line.step.split()
    if op in REGISTER_STEPS:
        return list(_register_steps(op, words, line.answer, host_features))
    if op == "I":
        target = words[3] if len(words) == 4 and words[2] == "target" else str(host_features.target)
        return [Concrete(f"I {words[0]} {target} {features_word(words[1], kernel):x}", line.answer)]
    if op == "i":
        more = [0] * 7
        more[0] = features_word(words[1], kernel)
        more[int(words[3])] |= int(words[4], 0)
        return [
            Concrete(" ".join(["i", words[0], str(host_features.target), *(f"{word:x}" for word in more)]), line.answer)
        ]
    if op == "F" and len(words) == 1:
        return [Concrete(f"F {words[0]} {uapi.KVM_ARM_VCPU_VEC}", line.answer)]
    if op == "L" and len(words) == 1:
        return [Concrete(f"L {words[0]} 4096", line.answer)]
    if op in "XA":
        request = vars(uapi).get(words[1])
        words[1] = f"{request:x}" if isinstance(request, int) else words[1].removeprefix("0x")
        if op == "X":
            words[2] = f"{values.number(words[2], host_features):x}"
    return [Concrete(" ".join([op, *words]), line.answer)]


def _register_steps(op: str, words: list[str], answer: str, host_features: HostFeatures) -> Iterable[Concrete]:
    vcpu, name, *rest = words
    for n, id in enumerate(registers(name, host_features)):
        size = uapi.KVM_REG_SIZE(id)
        more = [_shifted(word, n) for word in rest]
        if op == "S" and not more[0].startswith("$"):
            more[0] = values.data(more[0], size, host_features).hex()
        elif op in "gs":
            more[0] = str(values.number(more[0], host_features))
        if op in SEEDED:
            place = SEEDED[op]
            more[place] = str((int(more[place]) + n) % 256)
        yield Concrete(" ".join([op, vcpu, f"{id:x}", *more]), _shifted(answer, n), size)


def _shifted(text: str, by: int) -> str:
    """A text whose patterns' seeds are greater by some."""
    return re.sub(r"pattern:(\d+)", lambda match: f"pattern:{int(match[1]) + by}", text)


def group(id: int) -> str:
    """The bank that a register belongs to, as restores and comparisons sum up: "z", "p", "za", or its own name."""
    name = regid.name_of(id)
    match = re.fullmatch(r"([zpvx])\d+|(za)\.h\[\d+\]", name)
    return (match[1] or match[2]) if match else name
