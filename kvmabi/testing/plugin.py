# SPDX-License-Identifier: MIT
"""The pytest plugin: a machine as a fixture, and a test in which guest state was lost fails.

pytest loads this file in every project of the environment, so it imports nothing of kvmabi until a test uses it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kvmabi.kvm import Kvm, Vcpu
    from kvmabi.profiles import Host
    from kvmabi.testing.case import Case
    from kvmabi.testing.running import VmmRun

MARKER = (
    "kvmabi(host='sme-demo', kernel=None, features=None, guest=None, fail_on=('lost', 'changed'), strict=False, "
    "ignore=()): the machine of the fixtures kvm_host, kvm, vcpu and run_vmm, and what fails the test (kvmabi.testing)"
)
CASE = pytest.StashKey["Case"]()
SECTION = "kvmabi"


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker."""
    config.addinivalue_line("markers", MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Checks the marker's arguments; a test with a list of hosts runs once on each."""
    item = metafunc.definition
    if item.get_closest_marker("kvmabi") is None:
        return
    from kvmabi.errors import UsageError

    try:
        case = _new_case(item)
        hosts = case.settings.hosts
        if case.is_drawn and hasattr(metafunc.function, "hypothesis"):
            raise UsageError("a test with @given draws the host as well, and opens it with kvmabi.testing.opened")
    except UsageError as error:
        raise pytest.Collector.CollectError(f"{item.nodeid}: @pytest.mark.kvmabi: {error}") from None
    if hosts and "kvm_host" in metafunc.fixturenames:
        names = [host if isinstance(host, str) else host.name for host in hosts]
        metafunc.parametrize("kvm_host", hosts, indirect=True, ids=names)


@pytest.fixture
def kvm_host(request: pytest.FixtureRequest) -> Host:
    """The host of the test, a kvmabi.Host: that of the marker, or of ``parametrize("kvm_host", …, indirect=True)``."""
    with _one_line():
        case = _case_of(request.node)
        case.choice = getattr(request, "param", case.choice)
        return case.per_example("kvm_host") if case.is_drawn else case.host


@pytest.fixture
def kvm(request: pytest.FixtureRequest, kvm_host: Host) -> Iterator[Kvm]:
    """An open ``/dev/kvm`` of that host, a kvmabi.Kvm; closed after the test."""
    case = _case_of(request.node)
    if case.is_drawn:
        yield case.per_example("kvm")
        return
    with _one_line():
        case.choice = kvm_host  # a project may have a fixture of that name
        opened = case.open()
    with opened:
        yield opened


@pytest.fixture
def vcpu(request: pytest.FixtureRequest, kvm: Kvm) -> Vcpu:
    """vCPU 0 of a new VM, with the host's vector features, or those of the marker, and finalised."""
    case = _case_of(request.node)
    with _one_line():
        return case.per_example("vcpu") if case.is_drawn else case.create_vcpu(kvm)


@pytest.fixture
def run_vmm(
    request: pytest.FixtureRequest, kvm_host: Host, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., VmmRun]:
    """run_vmm(program, *arguments, check=True, …): run a VMM's binary on that host, and fail if it lost state.

    The other arguments are those of kvmabi.testing.run_program; what it printed is printed by the test. A program can
    restore what another one of the same test has saved.
    """
    case = _case_of(request.node)
    saves = tmp_path_factory.mktemp("kvmabi-saves")

    def run(*argv: Any, check: bool = True, **options: Any) -> VmmRun:
        __tracebackhide__ = True
        from kvmabi.guests import GuestError
        from kvmabi.testing.running import run_program

        with _one_line():
            settings = case.settings
            host = case.host if case.is_drawn else kvm_host
            machine = {
                "host": host,
                "kernel": settings.kernel,
                "ignored": settings.ignored,
                "saves": saves,
                "guest": settings.guest,
            }
            try:
                done = run_program(*argv, **{**machine, **options})
            except (TimeoutError, RuntimeError, GuestError) as error:
                raise _failure(f"kvmabi: {error}") from None
        print(done.stdout, end="")
        print(done.stderr, end="", file=sys.stderr)
        case.add_run(done.argv, done.status, done.verdict, done.events)
        why = case.why(done.verdict)
        if check and why:
            pytest.fail(why)
        return done

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test on each host of a strategy."""
    case = pyfuncitem.stash.get(CASE, None)
    if case is None or not case.is_drawn:
        return None
    from kvmabi.testing.examples import run_examples

    fixtures = pyfuncitem.funcargs  # also those that other fixtures use
    arguments = {name: fixtures[name] for name in signature(pyfuncitem.obj).parameters if name in fixtures}
    try:
        run_examples(pyfuncitem.name, pyfuncitem.obj, arguments, case, _fail)
    except pytest.fail.Exception as error:  # its notes say which example it was; pytest leaves them out
        notes = getattr(error, "__notes__", [])
        raise _failure("\n".join([str(error), *notes]), pytrace=error.pytrace) from None
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that is run again begins anew."""
    if CASE in item.stash:
        del item.stash[CASE]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Judges a test when it has ended, before its fixtures are closed."""
    case = item.stash.get(CASE, None)
    if case is None:
        return (yield)
    try:
        result = yield
    except BaseException:
        case.judge()
        raise
    if why := case.judge():
        _fail(why)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what was judged to the report of the test, as a section of its own."""
    report = yield
    case = item.stash.get(CASE, None)
    if case is not None and call.when == "call" and case.reports:
        report.sections.append((SECTION, "\n\n".join(case.reports)))
    return report


def _case_of(item: pytest.Item) -> Case:
    """The case of a test, made when the first of its fixtures is."""
    case = item.stash.get(CASE, None)
    if case is None:
        case = item.stash[CASE] = _new_case(item)
    return case


def _new_case(item: pytest.Item) -> Case:
    from kvmabi.testing.case import Case

    markers = list(item.iter_markers("kvmabi"))
    return Case((marker.kwargs for marker in markers), [value for marker in markers for value in marker.args])


def _failure(why: str, *, pytrace: bool = False) -> BaseException:
    """The exception of pytest.fail, to be raised ``from None``: pytest prints causes even without a traceback."""
    return pytest.fail.Exception(why, pytrace=pytrace)


def _fail(why: str) -> None:
    raise _failure(why)


@contextmanager
def _one_line() -> Iterator[None]:
    """What is misused fails the test with one line, without a traceback."""
    from kvmabi.errors import UsageError

    try:
        yield
    except UsageError as error:
        raise _failure(f"kvmabi: {error}") from None
