# SPDX-License-Identifier: MIT
"""Faults on demand: ioctls that fail, or are answered late, by rules that a test of a VMM's error paths gives.

A rule is a line: the ioctl, a register if it is KVM_GET_ONE_REG or KVM_SET_ONE_REG, what happens, and when:
"SET_ONE_REG za.h[3] EINTR once", "RUN delay=20ms every=10", "*_ONE_REG z* ENOMEM p=0.01 vcpu=1".

>>> faults = Faults([Rule.parse("SET_ONE_REG za.h[*] EINTR once", ["KVM_SET_ONE_REG", "KVM_RUN"])])
>>> [faults.strike(Attempt("KVM_SET_ONE_REG", name, 1, 0)) is not None for name in ("x0", "za.h[3]", "za.h[4]")]
[False, True, False]
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from kvmabi import regid
from kvmabi.errors import UsageError

PREFIX = "KVM_"
REGISTER_IOCTLS = frozenset({"KVM_GET_ONE_REG", "KVM_SET_ONE_REG"})
UNITS = {"ms": 1e-3, "s": 1.0}
MOST_SECONDS = 600.0
MOST_COUNT = 10**9
ONCE = "once"
DELAY = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(ms|s)")
NUMBER = re.compile(r"[0-9]{1,9}")
CHANCE = re.compile(r"[01](?:\.[0-9]{1,9})?")
SHAPE = (
    "a rule is an ioctl, for ONE_REG a register, then an errno or delay=20ms, then any of once, times=N, after=N, "
    "every=N, p=0.1, vm=N, vcpu=N"
)


class Attempt(NamedTuple):
    """An ioctl that begins: its name, the register's name ("" for none), the VM's and the vCPU's number."""

    ioctl: str
    register: str
    vm: int | None
    vcpu: int | None


@dataclass
class Rule:
    """One rule. ``ioctl`` and ``register`` are names in which ``*`` stands for any characters; "" is any register.

    What happens: the ioctl fails with ``errno`` and changes nothing, or (errno 0) its answer comes ``seconds`` late.
    When: of the ioctls that match, the first ``after`` are spared, then every ``every``-th is struck with probability
    ``chance``, ``times`` in all (None: no limit). ``matched`` and ``struck`` count.
    """

    text: str
    ioctl: str
    register: str = ""
    errno: int = 0
    seconds: float = 0.0
    after: int = 0
    every: int = 1
    chance: float = 1.0
    times: int | None = None
    vm: int | None = None
    vcpu: int | None = None
    matched: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)

    @staticmethod
    def parse(text: str, ioctls: Iterable[str]) -> Rule:
        """The rule of a line; ``ioctls`` are the names that there are. Raises UsageError."""
        words = text.split()
        if len(words) < 2:
            raise _error(text, SHAPE)
        pattern = words[0].upper()
        pattern = pattern if pattern.startswith((PREFIX, "*")) else PREFIX + pattern
        meant = [name for name in ioctls if matches(pattern, name)]
        if not meant:
            raise _error(text, f"no ioctl is named {words[0]}")
        rule = Rule(text, pattern)
        rest = words[1:]
        if not _is_outcome(rest[0]):
            if not REGISTER_IOCTLS.issuperset(meant):
                raise _error(text, f"{words[0]} takes no register: {rest[0]!r} is neither an errno nor a delay")
            rule.register = _register(text, rest.pop(0).lower())
        if not rest:
            raise _error(text, SHAPE)
        if not _is_outcome(rest[0]):
            raise _error(text, f"{rest[0]!r:.40} is neither an errno nor a delay: {SHAPE}")
        rule._set_outcome(rest.pop(0))
        for word in rest:
            rule._set_condition(word)
        conditions = ["times" if word == ONCE else word.partition("=")[0] for word in rest]
        if len(set(conditions)) < len(conditions):
            raise _error(text, f"a condition is there twice: {' '.join(rest)!r:.80}")
        return rule

    def matches(self, attempt: Attempt) -> bool:
        """Whether the rule is about this ioctl."""
        return (
            matches(self.ioctl, attempt.ioctl)
            and (not self.register or matches(self.register, attempt.register))
            and self.vm in (None, attempt.vm)
            and self.vcpu in (None, attempt.vcpu)
        )

    def strikes(self, random: Random) -> bool:
        """Count an ioctl that the rule is about; returns whether it is struck."""
        self.matched += 1
        if self.times is not None and self.struck >= self.times:
            return False
        past = self.matched - self.after
        if past <= 0 or past % self.every or (self.chance < 1 and random.random() >= self.chance):
            return False
        self.struck += 1
        return True

    def _set_outcome(self, word: str) -> None:
        name, _, value = word.partition("=")
        if not value:
            self.errno = _errno(name)
            return
        delay = DELAY.fullmatch(value)
        self.seconds = 0.0 if delay is None else float(delay[1]) * UNITS[delay[2]]
        if not 0 < self.seconds <= MOST_SECONDS:
            raise _error(self.text, f"a delay is a time such as 20ms or 1.5s, at most {MOST_SECONDS:.0f}s, not {value}")

    def _set_condition(self, word: str) -> None:
        name, _, value = word.partition("=")
        if word == ONCE:
            self.times = 1
        elif name == "p" and CHANCE.fullmatch(value) and 0 < float(value) <= 1:
            self.chance = float(value)
        elif name in COUNTS and NUMBER.fullmatch(value) and int(value) >= COUNTS[name]:
            setattr(self, name, int(value))
        else:
            raise _error(self.text, f"{word!r:.40} is not one of once, times=N, after=N, every=N, p=0.1, vm=N, vcpu=N")


COUNTS = {"times": 1, "after": 0, "every": 1, "vm": 1, "vcpu": 0}
"""Conditions that take a number, and the least that each takes."""


class Faults:
    """Rules, of which the first that strikes decides. The same ``seed`` makes the same choices, each rule its own."""

    def __init__(self, rules: Sequence[Rule], seed: int = 0) -> None:
        self.rules = tuple(rules)
        self._randoms = [Random(f"{seed}/{number}") for number in range(len(self.rules))]

    @staticmethod
    def parse(lines: Iterable[str], ioctls: Iterable[str], seed: int = 0) -> Faults | None:
        """The faults of some lines, None for no line; ``ioctls`` are the names that there are. Raises UsageError."""
        names = list(ioctls)
        rules = [Rule.parse(line, names) for line in lines]
        return Faults(rules, seed) if rules else None

    def about(self, ioctls: Iterable[str]) -> bool:
        """Whether some rule is about one of these ioctls."""
        return any(matches(rule.ioctl, name) for rule in self.rules for name in ioctls)

    def strike(self, attempt: Attempt) -> Rule | None:
        """The rule that strikes an ioctl that begins, if one does."""
        for rule, random in zip(self.rules, self._randoms, strict=True):
            if rule.matches(attempt) and rule.strikes(random):
                return rule
        return None

    def lines(self) -> list[str]:
        """A line for each rule: how often it struck."""
        return [f"{rule.text}: struck {rule.struck} of {rule.matched}" for rule in self.rules]


def matches(pattern: str, name: str) -> bool:
    """Whether a name is of a pattern, in which only ``*`` has a meaning: registers' names have brackets.

    >>> matches("za.h[*]", "za.h[3]"), matches("z*", "x0")
    (True, False)
    """
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    if not name.startswith(first) or not name.endswith(last) or len(name) < len(first) + len(last):
        return False
    place = len(first)
    for part in middle:
        found = name.find(part, place, len(name) - len(last))
        if found < 0:
            return False
        place = found + len(part)
    return True


def _is_outcome(word: str) -> bool:
    return word.startswith("delay=") or _errno(word) != 0


def _errno(name: str) -> int:
    """The number of an errno's name, 0 for another word."""
    number = getattr(errno, name, 0) if name.startswith("E") else 0
    return number if isinstance(number, int) else 0


def _register(text: str, name: str) -> str:
    """The name by which events call a register, or a pattern that some register has."""
    if "*" not in name:
        try:
            return regid.name_of(regid.parse(name))
        except UsageError as error:
            raise _error(text, str(error)) from None
    if not any(matches(name, one) for one in regid.names()):
        raise _error(text, f"no register is named {name}")
    return name


def _error(text: str, why: str) -> UsageError:
    return UsageError(f"fault {text!r:.80}: {why}")
