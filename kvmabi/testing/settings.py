# SPDX-License-Identifier: MIT
"""The arguments of ``@pytest.mark.kvmabi``, checked at the door: which machine a test has, and what fails it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kvmabi import regid, tables
from kvmabi.errors import UsageError
from kvmabi.guests import scripts
from kvmabi.order import FAILING, Severity, Verdict
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.profiles import features as feature_rules

DEFAULT_HOST = "sme-demo"


@dataclass(frozen=True)
class Settings:
    """What the markers of a test say. ``host`` is a name, a file, a Host, a tuple of them, or a hypothesis strategy.

    ``kernel`` None is the kernel that the host was recorded with, ``features`` None the host's vector features.
    ``ignored`` are register IDs that findings leave out. ``guest`` is what runs on the vCPU: a generator function, an
    ``OnKernel`` or "FILE.py:NAME". ``strict``: a restore that was not judged fails the test, too.
    """

    host: Any = DEFAULT_HOST
    kernel: str | Kernel | None = None
    features: tuple[str, ...] | None = None
    fail_on: tuple[Severity, ...] = FAILING
    strict: bool = False
    ignored: tuple[int, ...] = ()
    guest: Any = None

    @property
    def hosts(self) -> tuple[str | Host, ...]:
        """The hosts to run the test on, one after the other; empty if it has one, or a strategy."""
        return self.host if isinstance(self.host, tuple) else ()

    def kernel_of(self, host: Host) -> Kernel:
        """The kernel of a test on this host."""
        return load_kernel(host.kernel if self.kernel is None else self.kernel)

    def features_on(self, host: Host, kernel: Kernel) -> set[str]:
        """The features of a test's vCPU: those of the marker, else the vector features that host and kernel have."""
        if self.features is not None:
            return set(feature_rules.expand(self.features))
        lengths = {"sve": host.sve_vector_bits, "sme": host.sme_vector_bits}
        return {name for name, bits in lengths.items() if bits and name in kernel.features}

    def fails(self, verdict: Verdict) -> bool:
        """Whether a verdict fails the test."""
        return verdict.fails(self.fail_on, strict=self.strict)


def parse(positional: Iterable[Any], arguments: Mapping[str, Any]) -> Settings:
    """Returns the settings for a marker's arguments. Raises UsageError for one that is unknown or wrong.

    >>> parse((), {"host": "a64fx", "fail_on": "lost"}).fail_on
    (<Severity.LOST: 'lost'>,)
    """
    if tuple(positional):
        raise UsageError("takes arguments by name only, such as host='sme-demo'")
    for name in arguments:
        if name not in _READERS:
            raise UsageError(f"{name!r} is not an argument: {tables.guess(name, _READERS)}")
    values = {name: _READERS[name](value) for name, value in arguments.items()}
    if "ignore" in values:
        values["ignored"] = values.pop("ignore")
    return Settings(**values)


def words(value: Any, what: str) -> tuple[str, ...]:
    """Names out of a text with commas or a collection of texts. Raises UsageError for anything else."""
    if isinstance(value, str):
        return tuple(filter(None, (word.strip() for word in value.split(","))))
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        names = tuple(value)
        if all(isinstance(name, str) for name in names):
            return names
    raise UsageError(f"{what} are names, such as 'a,b' or ['a', 'b'], not {value!r:.60}")


def is_strategy(value: Any) -> bool:
    """Whether a value is a hypothesis strategy; one that was made has imported hypothesis."""
    hypothesis = sys.modules.get("hypothesis.strategies")
    return hypothesis is not None and isinstance(value, hypothesis.SearchStrategy)


def _host(value: Any) -> Any:
    if is_strategy(value):
        return value
    if isinstance(value, list | tuple):
        if not value:
            raise UsageError("host=[] names no host")
        return tuple(map(_one_host, value))
    return _one_host(value)


def _one_host(value: Any) -> Any:
    load_host(value)
    return value


def _kernel(value: Any) -> Any:
    if value is not None:
        load_kernel(value)
    return value


def _features(value: Any) -> tuple[str, ...]:
    names = words(value, "features")
    known = {*feature_rules.table(), *feature_rules.aliases()}
    for name in names:
        if name not in known:
            raise UsageError(f"{name!r} is not a vCPU feature: {tables.guess(name, known)}")
    return names


def _severities(value: Any) -> tuple[Severity, ...]:
    names = words(value, "the severities of fail_on")
    for name in names:
        if name not in tuple(Severity):
            raise UsageError(f"fail_on: {name!r} is not a severity: take some of {', '.join(Severity)}")
    return tuple(map(Severity, names))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"strict is True or False, not {value!r:.60}")
    return value


def _ignored(value: Any) -> tuple[int, ...]:
    return tuple(map(regid.parse, words(value, "the registers of ignore")))


def _guest(value: Any) -> Any:
    """What is not one fails when the tests are collected; a file is loaded where it runs."""
    if isinstance(value, str):
        return scripts.named(value)
    if value is not None:
        scripts.Script(value)
    return value


_READERS = {
    "host": _host,
    "kernel": _kernel,
    "features": _features,
    "fail_on": _severities,
    "strict": _flag,
    "ignore": _ignored,
    "guest": _guest,
}
"""How each argument is read."""
