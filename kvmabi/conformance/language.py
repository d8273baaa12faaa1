# SPDX-License-Identifier: MIT
"""The lines of a case: steps with names in place of numbers, and the answers they must get.

A line is ``STEP -> ANSWER``; without an answer it must be OK. The steps are those of kvmabi.steps.grammar, by their
words, in which these words may be names:

===================================  ==============================================================================
init V FEATURES [target N] [word N   feature names of the kernel's profile joined by +, ``ptrauth`` for both of the
VALUE]                               pair, ``bit20``, ``none``. The target is the preferred one unless it is given;
                                     VALUE goes into word N of the features
finalize V [N]                       N is KVM_ARM_VCPU_VEC unless it is given
get V REG, set V REG VALUE,          REG: a register's name; ``z*``, ``p*``, ``v*`` or ``za*`` (the rows that the
set-pattern V REG SEED,              host's longest vector length has) for one step each; an ID in 0x...; with ``+N``
get-unmapped V REG,                  added or ``@N`` as its size in bytes. VALUE: see kvmabi.conformance.values.
set-unmapped V REG,                  Seeds rise by one from register to register of a bank. N bytes are mapped
get-partial V REG N,
set-partial V REG N SEED
list V [N], list-partial V N M       N and M are numbers, or a bound name: ``$all-1``
ioctl F IOCTL ARG,                   an ioctl by its name, or its number in 0x...
ioctl-struct F IOCTL
ioctl-bytes F IOCTL FIELD=VALUE ...  the fields of the ioctl's struct (kvmabi.steps.arguments), the others 0;
                                     or bytes=DATA, the argument of the step itself
has-attr F NAME VALUE, set-attr …    an attribute of a vGIC by its name (kvmabi.gicnames) in the place of its group
                                     and number: ``gicd_ctlr``, ``gicr_typer[cpu1]``
save V NAME                          read every register of the list, in its order
restore V NAME [first R,R...]        write them to a vCPU in that order, some of them first
restore V NAME plan                  FINALIZE the vCPU and write them in the order that loses nothing
                                     (kvmabi.model.plan)
same V NAME [but R,R...]             read them from a vCPU and compare, except free-running counters
===================================  ==============================================================================

The others are ``new``, ``create-vcpu``, ``enable-cap``, ``masks``, ``run``, ``create-device``, ``has-attr``,
``set-attr``, ``get-attr``, ``stats`` and ``cpu-features``.

An answer is an errno's name or OK, and after it: a value; ``n`` or ``$name``, a number or bytes, which get that name
where it is new and must equal it elsewhere; for lists ``with R R ... without R R ...``. ``any`` is any answer,
``ENOENT|EINVAL`` one of several. save, restore and same answer OK, or what went wrong: ``EBUSY za zt0; EPERM sve_vls``,
``differ z p``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from kvmabi import gicnames, regid, uapi
from kvmabi.conformance import values
from kvmabi.errors import UsageError
from kvmabi.profiles import Kernel, features
from kvmabi.steps.arguments import argument
from kvmabi.steps.grammar import MAX_IDS, ON_REGISTER, WORDS
from kvmabi.steps.hostfeatures import HostFeatures
from kvmabi.tables import guess

ARROW = " -> "
MACROS = ("save", "restore", "same")
BANKS = {"z*": ("z{}", 32), "p*": ("p{}", 16), "v*": ("v{}", 32)}
SEEDED = {"set-pattern": 0, "set-partial": 1}
"""Which word after the register is a seed."""
OF_ATTRIBUTES = frozenset({"has-attr", "set-attr", "get-attr"})
INIT_WORDS = 7
MAX_SIZE = 1 << (uapi.KVM_REG_SIZE_MASK >> uapi.KVM_REG_SIZE_SHIFT)
"""The largest size that an ID's size field encodes, in bytes."""
SIZE = re.compile(r"(.+)@(\d+)")
SUM = re.compile(r"(.+?)\+(0x[0-9a-f]+|\d+)")


class Line(NamedTuple):
    """A line of a case: a step, and the answer it must get."""

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
    return () if names == features.NO_FEATURES else features.expand(names.split("+"))


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
    """Returns the IDs that a register's name in a case stands for."""
    if text == "za*":
        return [uapi.KVM_REG_ARM64_SME_ZAHREG(n, 0) for n in range(values.number("sme_vl", host_features))]
    if text in BANKS:
        form, count = BANKS[text]
        return [regid.parse(form.format(n)) for n in range(count)]
    if match := SIZE.fullmatch(text):
        (id,) = registers(match[1], host_features)
        size = int(match[2])
        if size.bit_count() != 1 or size > MAX_SIZE:
            raise ValueError(f"{text}: a register's size is a power of two up to {MAX_SIZE}, in bytes")
        log2 = size.bit_length() - 1
        return [id & ~uapi.KVM_REG_SIZE_MASK | log2 << uapi.KVM_REG_SIZE_SHIFT]
    if match := SUM.fullmatch(text):
        (id,) = registers(match[1], host_features)
        return [(id + int(match[2], 0)) % (1 << 64)]
    return [regid.parse(text)]


def concrete(line: Line, host_features: HostFeatures, kernel: Kernel) -> list[Concrete]:
    """Returns the steps that a line stands for; UsageError or ValueError if it is not a step. Not for macros."""
    word, *words = line.step.split() or [""]
    op = WORDS.get(word)
    if op is None:
        raise ValueError(f"{word!r} is not a step: {guess(word, (*WORDS, *MACROS))}")
    if word == "ioctl-bytes" and len(words) > 1:
        words[2:] = [argument(words[1], words[2:])]
    if word == "init":
        return [Concrete(_init(words, host_features, kernel), line.answer)]
    if word in OF_ATTRIBUTES and len(words) > 1 and not words[1].isdecimal():
        place, attr = gicnames.parse(words[1])
        words[1:2] = [str(place), f"{attr:x}"]
    if word in DEFAULTS and len(words) == 1:
        words.append(DEFAULTS[word])
    if len(words) < len(op.words):
        raise ValueError(f"{line.step!r} lacks {' '.join(name for name, _ in op.words[len(words) :])}")
    if len(words) > len(op.words):
        raise ValueError(f"{line.step!r} has {words[len(op.words)]!r} too many")
    if op.letter in ON_REGISTER:
        return list(_register_steps(word, words, line.answer, host_features))
    if word in ("ioctl", "ioctl-struct", "ioctl-bytes"):
        request = vars(uapi).get(words[1])
        words[1] = f"{request:x}" if isinstance(request, int) else words[1].removeprefix("0x")
    if word == "ioctl":
        words[2] = f"{values.number(words[2], host_features):x}"
    return [Concrete(" ".join([op.letter, *words]), line.answer)]


DEFAULTS = {"finalize": str(uapi.KVM_ARM_VCPU_VEC), "list": str(MAX_IDS)}
"""The second word of a step that has only one."""


def _init(words: list[str], host_features: HostFeatures, kernel: Kernel) -> str:
    """INIT with one word of features, or with all of them."""
    if len(words) < 2:
        raise ValueError("init lacks features" if words else "init lacks file features")
    vcpu, names, *options = words
    target, more = str(host_features.target), [0] * INIT_WORDS
    more[0] = features_word(names, kernel)
    wide = False
    while options:
        match options:
            case ["target", target, *options]:
                pass
            case ["word", place, value, *options] if place.isdecimal() and int(place) < INIT_WORDS:
                more[int(place)] |= int(value, 0)
                wide = True
            case _:
                raise ValueError(f"{' '.join(options)!r} is neither 'target N' nor 'word N VALUE' with N from 0 to 6")
    return " ".join(["i" if wide else "I", vcpu, target, *(f"{word:x}" for word in more[: None if wide else 1])])


def _register_steps(word: str, words: list[str], answer: str, host_features: HostFeatures) -> Iterable[Concrete]:
    vcpu, name, *rest = words
    for n, id in enumerate(registers(name, host_features)):
        size = uapi.KVM_REG_SIZE(id)
        more = [_shifted(text, n) for text in rest]
        if word == "set" and not more[0].startswith("$"):
            more[0] = values.data(more[0], size, host_features).hex()
        elif word in ("get-partial", "set-partial"):
            more[0] = str(values.number(more[0], host_features))
        if word in SEEDED:
            place = SEEDED[word]
            more[place] = str((int(more[place]) + n) % 256)
        yield Concrete(" ".join([WORDS[word].letter, vcpu, f"{id:x}", *more]), _shifted(answer, n), size)


def _shifted(text: str, by: int) -> str:
    """Returns a text with its patterns' seeds increased."""
    return re.sub(r"pattern:(\d+)", lambda match: f"pattern:{int(match[1]) + by}", text)


def group(id: int) -> str:
    """Returns the bank that restores and comparisons report for a register: "z", "p", "za", or its own name."""
    name = regid.name_of(id)
    match = re.fullmatch(r"([zpvx])\d+|(za)\.h\[\d+\]", name)
    return (match[1] or match[2]) if match else name
