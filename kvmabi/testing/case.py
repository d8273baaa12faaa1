# SPDX-License-Identifier: MIT
"""One test: the machine that its markers ask for, and the verdict on what it did to it."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from kvmabi import regid
from kvmabi.errors import KvmError, UsageError
from kvmabi.events import Event
from kvmabi.guests import scripts
from kvmabi.kvm import Kvm, Vcpu, open_kvm
from kvmabi.order import NOTHING_JUDGED, Finding, Verdict
from kvmabi.profiles import Host, load_host
from kvmabi.testing import settings

REFUSED_SHOWN = 5
DECLARED = ("saved", "restored")


class PerExample:
    """What a fixture holds where a strategy draws the host: the test gets the real one for each example."""

    def __init__(self, fixture: str) -> None:
        self._fixture = fixture

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UsageError(
            f"{self._fixture} is a new one for each host that the strategy draws: use it in the test, not in a fixture"
        )

    def __repr__(self) -> str:
        return f"<{self._fixture} of each example>"


class Case:
    """A test's machine, and the reports on it. ``reports`` grows; ``host`` is the present example's with a strategy."""

    def __init__(self, markers: Iterable[Mapping[str, Any]], positional: Iterable[Any] = ()) -> None:
        """``markers`` are the arguments of the test's markers, the nearest one first."""
        merged: dict[str, Any] = {}
        for arguments in markers:
            merged = {**arguments, **merged}
        self.settings = settings.parse(positional, merged)
        self.choice: Any = self.settings.host
        self.kvm: Kvm | None = None
        self.reports: list[str] = []

    @property
    def is_drawn(self) -> bool:
        """Whether a strategy draws the host."""
        return settings.is_strategy(self.choice)

    @property
    def host(self) -> Host:
        """The host. Raises UsageError where none was drawn yet."""
        if self.is_drawn:
            raise UsageError("a strategy draws the host for each example: there is none outside of the test itself")
        host = self.choice = load_host(self.choice)
        return host

    def open(self) -> Kvm:
        """Open the test's ``/dev/kvm``."""
        host = self.host
        self.kvm = open_kvm(host=host, kernel=self.settings.kernel_of(host), ignored=self.settings.ignored)
        return self.kvm

    def per_example(self, fixture: str) -> Any:
        """What a fixture of this name holds where a strategy draws the host."""
        return PerExample(fixture)

    def create_vcpu(self, kvm: Kvm) -> Vcpu:
        """A vCPU of a new VM with the test's features, finalised if it has vectors. Raises UsageError if refused."""
        features = self.settings.features_on(kvm.host, kvm.kernel)
        vcpu = kvm.create_vm().create_vcpu(0)
        try:
            vcpu.init(features)
            if features & {"sve", "sme"}:
                vcpu.finalize()
            guest = self.settings.guest
            vcpu.guest = scripts.load(guest).guest if isinstance(guest, str) else guest
        except KvmError as error:
            names = ", ".join(sorted(features))
            raise UsageError(f"a vCPU with the features {names} on {kvm.host!r}: {error}") from None
        return vcpu

    def judge(self) -> str:
        """Judge what the test did, and add the report; returns why the test fails, "" if it does not."""
        kvm, self.kvm = self.kvm, None
        if kvm is None or not _was_written(kvm):
            return ""
        verdict = kvm.verdict()
        self.reports.append(f"{kvm.host.name} under {kvm.kernel.label}: {_report(verdict, kvm.log.events)}")
        return self.why(verdict)

    def why(self, verdict: Verdict) -> str:
        """Why a verdict fails the test, a line for each reason; "" if it does not."""
        if not self.settings.fails(verdict):
            return ""
        findings = [finding for finding in verdict.findings if finding.severity in self.settings.fail_on]
        lines = [f"{finding.severity}: {finding.title}: {_registers(finding)}" for finding in findings]
        if self.settings.strict:
            lines += [f"not judged: {vcpu}" for vcpu in verdict.unseen]
            lines += [NOTHING_JUDGED] if verdict.is_vacuous else []
        return "\n".join([f"kvmabi: {lines[0]}", *lines[1:]])

    def add_run(self, argv: Iterable[str], status: int, verdict: Verdict, events: Iterable[Event]) -> None:
        """Add the report on a program that the test has run."""
        refused = events if status else ()
        self.reports.append(f"{' '.join(argv)}: exit status {status}\n{_report(verdict, refused)}")


def _was_written(kvm: Kvm) -> bool:
    """Whether the test wrote state or declared a save or a restore, so that there is something to judge."""
    log = kvm.log
    if log.count > log.kept:
        return True
    return any(event.what.startswith("KVM_SET_") or event.what in DECLARED for event in log.events)


def _report(verdict: Verdict, events: Iterable[Event]) -> str:
    """Returns a verdict as text, and the ioctls that were refused last."""
    refused = (event for event in reversed(list(events)) if event.errno and event.errno != errno.EINTR)
    last = list(islice(refused, REFUSED_SHOWN))
    lines = [str(verdict)]
    if last:
        lines += ["refused last:", *(f"  {event}" for event in reversed(last))]
    return "\n".join(lines)


def _registers(finding: Finding) -> str:
    return f"{regid.ranges(finding.registers)} of {finding.place}"
