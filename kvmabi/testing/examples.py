# SPDX-License-Identifier: MIT
"""A test whose host a hypothesis strategy draws: it runs on a new machine for each example, and each is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import Phase, given, settings

from kvmabi.profiles import Host
from kvmabi.testing.case import Case

FIXTURES = ("kvm_host", "kvm", "vcpu")


def run_examples(
    name: str, test: Callable[..., Any], arguments: Mapping[str, Any], case: Case, fail: Callable[[str], Any]
) -> None:
    """Run a test on each host that the case's strategy draws; hypothesis shrinks a host on which it fails.

    ``arguments`` are the test's fixtures; FIXTURES among them are new for each example. ``fail`` fails the test.
    """

    def example(host: Host) -> None:
        case.choice = host
        case.reports.clear()
        _run_example(test, arguments, case, fail)

    example.__name__ = example.__qualname__ = name
    phases = [phase for phase in settings().phases if phase is not Phase.explain]  # it would explain kvmabi
    settings(deadline=None, phases=phases)(given(host=case.choice)(example))()


def _run_example(
    test: Callable[..., Any], arguments: Mapping[str, Any], case: Case, fail: Callable[[str], Any]
) -> None:
    with case.open() as kvm:
        made = {"kvm_host": kvm.host, "kvm": kvm}
        if "vcpu" in arguments:
            made["vcpu"] = case.create_vcpu(kvm)
        failed = True
        try:
            test(**{**arguments, **{name: value for name, value in made.items() if name in arguments}})
            failed = False
        finally:
            why = case.judge()
        if why and not failed:
            fail(why)
