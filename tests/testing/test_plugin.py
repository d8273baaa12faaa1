# SPDX-License-Identifier: MIT
"""The pytest plugin: each test here runs pytest on tests that use it, in this process unless it says otherwise."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

# What inner runs import stays loaded: pytester drops modules that were not there before.
from kvmabi import Kvm

pytest_plugins = ["pytester"]
HEAD = """
import pytest
import kvmabi
from kvmabi.testing import restored, saved, strategies

def another(kvm):
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init({"sve", "sme"})
    vcpu.finalize()
    return vcpu
"""
LOSES = """
    vcpu["svcr"] = 2
    vcpu["z3"] = b"\\x07" * 256
    vcpu["svcr"] = 3
"""
SECTION = "*- kvmabi -*"
Pytest = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Pytest:
    """run(source, *arguments): pytest on one test file."""
    monkeypatch.setenv("COLUMNS", "200")

    def inner(source: str, *arguments: str, fresh: bool = False) -> pytest.RunResult:
        pytester.makepyfile(HEAD + textwrap.dedent(source))
        start = pytester.runpytest_subprocess if fresh else pytester.runpytest_inprocess
        return start("-p", "no:cacheprovider", *arguments)

    return inner


# --- green and red


def test_fixtures_make_a_finalised_vcpu(run: Pytest) -> None:
    """``vcpu`` has the host's vector features and can be read; it is the first one of a VM of ``kvm``."""
    result = run("""
    def test(kvm_host, kvm, vcpu):
        assert kvm_host.name == "sme-demo" and kvm.host is kvm_host
        assert vcpu.kvm is kvm and vcpu.index == 0
        assert {"svcr", "sve_vls", "z0"} <= set(vcpu.names())
    """)
    result.assert_outcomes(passed=1)


def test_kvm_is_closed_after_the_test(run: Pytest) -> None:
    """Its descriptors are gone when the next test begins."""
    result = run("""
    import os
    import pytest
    FDS = []
    def test_first(kvm, vcpu):
        FDS.extend([kvm.fd, vcpu.fd])
    def test_second():
        for fd in FDS:
            with pytest.raises(OSError):
                os.fstat(fd)
    """)
    result.assert_outcomes(passed=2)


def test_lost_state_fails_a_test_whose_asserts_passed(run: Pytest) -> None:
    """The failure names the registers in one line, and has the report as a section of its own."""
    result = run("def test(vcpu):" + LOSES + "    assert vcpu.read('svcr') == 3")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "kvmabi: lost: values destroyed by a later SVCR write: z3 of VM 1 vCPU 0",
        SECTION,
        "*event 7 wrote svcr = 0x3 after it was set*",
        "*fix: *write svcr before these registers",
        "FAILED *::test - Failed: kvmabi: lost: *",
    ])  # fmt: skip
    assert "Traceback" not in result.stdout.str()


def test_a_failed_test_keeps_its_failure(run: Pytest) -> None:
    """The report is an extra section, with what was refused last."""
    result = run("""
    def test(vcpu):
        vcpu["za.h[3]"] = bytes(256)
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E *KvmError: EBUSY: za.h[[]3[]]*",
        SECTION,
        "refused last:",
        "*KVM_SET_ONE_REG za.h[[]3[]]: EBUSY*",
    ])  # fmt: skip


def test_lost_state_can_be_expected_to_fail(run: Pytest) -> None:
    """xfail applies: a VMM's known loss stays visible and does not break the build."""
    result = run("@pytest.mark.xfail(strict=True)\ndef test(vcpu):" + LOSES)
    result.assert_outcomes(xfailed=1)


def test_no_report_is_formed_if_nothing_was_written(run: Pytest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that only reads costs no verdict, whether it passes or fails."""
    monkeypatch.setattr(Kvm, "verdict", lambda _kvm: pytest.exit("a verdict was formed"))
    result = run("""
    def test_passes(vcpu):
        assert vcpu.read("x0") == 0
    def test_fails(vcpu):
        assert vcpu.read("x0") == 1
    """)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line(SECTION)


# --- declared pairs

SETS_X3 = """
    vcpu["x3"] = 7
    save = saved(vcpu)
    target = another(kvm)
"""


def test_a_declared_pair_that_agrees_passes(run: Pytest) -> None:
    """Also if the target changes once the guest was entered: that is later than the restore."""
    result = run(
        "def test(kvm, vcpu):"
        + SETS_X3
        + """
    target["x3"] = vcpu["x3"]
    restored(target, save)
    with pytest.raises(kvmabi.KvmError, match="EINTR"):
        target.run()
    target["x3"] = 8
    """
    )
    result.assert_outcomes(passed=1)


def test_a_declared_pair_shows_what_inference_does_not_judge(run: Pytest) -> None:
    """A target to which nothing was written is no restore to look at; declared, it has lost x3."""
    result = run(
        "def test_inferred(kvm, vcpu):"
        + SETS_X3
        + "\ndef test_declared(kvm, vcpu):"
        + SETS_X3
        + "    restored(target, save)"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*_ test_declared _*", "kvmabi: lost: *: x3 of VM 2 vCPU 0", SECTION, "*declared*"])


def test_a_declared_pair_is_compared_at_the_guest_entry(run: Pytest) -> None:
    """A value that is written after the guest was entered comes too late."""
    result = run(
        "def test(kvm, vcpu):"
        + SETS_X3
        + """
    restored(target, save)
    with pytest.raises(kvmabi.KvmError, match="EINTR"):
        target.run()
    target["x3"] = vcpu["x3"]
    """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["kvmabi: lost: *: x3 of VM 2 vCPU 0"])


# --- the marker


def test_fail_on_chooses_the_severities(run: Pytest) -> None:
    """A latent finding fails only a test that asks for it; an edit only one that does not leave ``changed`` out."""
    body = """
    saves = {name: vcpu[name] for name in vcpu.names()}
    target = another(kvm)
    for name in saves:
        try:
            target[name] = saves[name]
        except kvmabi.KvmError:
            assert name in ("sve_vls", "sme_vls")
    """
    result = run(
        "def test_default(kvm, vcpu):"
        + body
        + "\n@pytest.mark.kvmabi(fail_on='lost,latent')\ndef test_latent(kvm, vcpu):"
        + body
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*_ test_latent _*", "kvmabi: latent: vector lengths written after FINALIZE*"])


def test_strict_fails_a_restore_that_was_not_judged(run: Pytest) -> None:
    """A restore from a save that no test has seen."""
    body = """
    import kvmabi
    with kvmabi.open() as elsewhere:
        source = elsewhere.create_vm().create_vcpu(0)
        source.init({"sve", "sme"})
        source.finalize()
        state = {name: source[name] for name in source.names() if not name.endswith("_vls")}
    for name, value in state.items():
        vcpu[name] = bytes([7] * 8) if name.startswith("x") else value
    """
    result = run(
        "def test_lenient(kvm, vcpu):" + body + "\n@pytest.mark.kvmabi(strict=True)\ndef test_strict(kvm, vcpu):" + body
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["kvmabi: not judged: VM 1 vCPU 0: restored, * from a save that was not seen*"])


def test_ignored_registers_are_left_out(run: Pytest) -> None:
    """``ignore`` takes names, in a list or with commas."""
    result = run("@pytest.mark.kvmabi(ignore='z3,z4')\ndef test(vcpu):" + LOSES)
    result.assert_outcomes(passed=1)


def test_the_nearest_marker_wins_argument_by_argument(run: Pytest) -> None:
    """A class sets the host for all its tests, a test its kernel or another host."""
    result = run("""
    @pytest.mark.kvmabi(host="sme-demo", kernel="linux-7.2", features=["pmu"])
    class TestMachine:
        def test_class(self, kvm, vcpu):
            assert kvm.kernel.name == "linux-7.2"
            assert "z0" not in vcpu
        @pytest.mark.kvmabi(host="a64fx", features="sve")
        def test_function(self, kvm, vcpu):
            assert (kvm.host.name, kvm.kernel.name) == ("a64fx", "linux-7.2")
            assert "z0" in vcpu
    """)
    result.assert_outcomes(passed=2)


WRONG = {
    "hots='a64fx'": "'hots' is not an argument: did you mean host?",
    "'a64fx'": "takes arguments by name only, such as host='sme-demo'",
    "host='a64fy'": "no host 'a64fy' (did you mean a64fx?): take one of *",
    "host=[]": "host=[[][]] names no host",
    "host=7": "7 is not a host: take one of *",
    "kernel='linux'": "no kernel 'linux'*: take one of *",
    "features='sv'": "'sv' is not a vCPU feature: *",
    "features=7": "features are names, such as 'a,b' or *, not 7",
    "fail_on='lots'": "fail_on: 'lots' is not a severity: take some of lost, changed, latent",
    "strict='yes'": "strict is True or False, not 'yes'",
    "ignore='zz'": "*zz*",
    "guest='hello'": "'hello' does not name a guest: take FILE.py:NAME",
    "guest=print": "a guest is a generator function, def guest(cpu) with a yield: print is not",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_marker_is_one_line(run: Pytest, arguments: str) -> None:
    """Found when tests are collected, with the test's name and without a traceback."""
    result = run(f"@pytest.mark.kvmabi({arguments})\ndef test(kvm):\n    pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*::test: @pytest.mark.kvmabi: {WRONG[arguments]}"])
    assert not re.search(r"Traceback|^E  ", result.stdout.str(), re.MULTILINE)


def test_features_that_the_host_lacks_are_one_line(run: Pytest) -> None:
    """The error of KVM_ARM_VCPU_INIT, with the host."""
    result = run("@pytest.mark.kvmabi(host='a64fx', features='sme', kernel='sme-v12')\ndef test(vcpu):\n    pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["kvmabi: a vCPU with the features sme on <Host a64fx: *>: EINVAL: this host has no sme*"]
    )


def test_the_marker_is_registered(run: Pytest) -> None:
    """--strict-markers accepts it, --markers explains it."""
    run("@pytest.mark.kvmabi()\ndef test():\n    pass", "--strict-markers").assert_outcomes(passed=1)
    run("", "--markers").stdout.fnmatch_lines(["@pytest.mark.kvmabi(host=*"])


# --- guests


GUEST = """
from kvmabi.guests import Mmio

def streams(cpu):
    cpu.msr("smcr_el1", 15)
    cpu.smstart("sm")
    cpu.z[3] = b"\\x07" * cpu.vl
    yield Mmio(0x9000000)
    cpu.x[0] = 1 / 0
"""


def test_the_markers_guest_runs_on_the_vcpu(run: Pytest) -> None:
    """In this process, on each host; what it leaves is what the test reads."""
    result = run(
        GUEST
        + """
@pytest.mark.kvmabi(host=["sme-demo", "sme-sve512-sme512"], guest=streams)
def test(vcpu):
    assert vcpu.run().mmio.phys_addr == 0x9000000
    assert vcpu.read("svcr") == 1 and vcpu["z3"][:3] == b"\\x07\\x07\\x07"
"""
    )
    result.assert_outcomes(passed=2)


def test_what_a_vmm_loses_of_a_guests_state_fails_the_test(run: Pytest) -> None:
    """The guest's values count as saved; a restore in another order than the right one is found."""
    result = run(
        GUEST
        + """
@pytest.mark.kvmabi(guest=streams)
def test(kvm, vcpu):
    vcpu.run()
    label = saved(vcpu)
    values = {id: vcpu[id] for id in vcpu.reg_list()}
    target = another(kvm)
    for id, value in sorted(values.items(), key=lambda one: one[0] == kvmabi.regid.parse("svcr")):
        try:
            target[id] = value
        except kvmabi.KvmError:
            pass
    restored(target, label)
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*lost: values destroyed by a later SVCR write: z3 of VM 2 vCPU 0*"])


def test_a_guest_that_fails_fails_the_test(run: Pytest) -> None:
    """With the line of the script, and the error as the cause."""
    result = run(
        GUEST
        + """
@pytest.mark.kvmabi(guest=streams)
def test(vcpu):
    vcpu.run()
    vcpu.run()
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*ZeroDivisionError*", "E *GuestError: *test_a_guest_that_fails_fails_the_test.py:*: ZeroDivisionError: *"]
    )


# --- hosts


def test_a_list_of_hosts_runs_a_test_on_each(run: Pytest) -> None:
    """The test's name has the host's, also that of a Host that was made by hand."""
    result = run(
        """
    from dataclasses import replace
    WIDE = replace(kvmabi.load_host("sme-demo"), name="wide", sve_vector_bits=(2048,))
    @pytest.mark.kvmabi(host=["a64fx", WIDE])
    def test(vcpu):
        assert "z0" in vcpu
    """,
        "-v",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*::test[[]a64fx[]] PASSED*", "*::test[[]wide[]] PASSED*"])


def test_the_host_can_be_parametrised_by_hand(run: Pytest) -> None:
    """parametrize("kvm_host", …, indirect=True) goes before the marker."""
    result = run("""
    @pytest.mark.kvmabi(host="sme-demo")
    @pytest.mark.parametrize("kvm_host", ["a64fx", "cortex-a57"], indirect=True)
    def test(kvm, vcpu):
        assert kvm.host.name in ("a64fx", "cortex-a57")
        assert ("z0" in vcpu) == bool(kvm.host.sve_vector_bits)
    """)
    result.assert_outcomes(passed=2)


@pytest.mark.slow
def test_a_strategy_draws_hosts(run: Pytest) -> None:
    """The test runs once for each host, with a kvm and a vcpu of its own, and other fixtures as they are."""
    result = run("""
    SEEN = []
    @pytest.mark.kvmabi(host=strategies.hosts())
    def test(kvm_host, kvm, vcpu, tmp_path):
        assert kvm.host is kvm_host and vcpu.kvm is kvm and tmp_path.is_dir()
        SEEN.append((kvm_host.name, id(kvm)))
    def test_seen():
        assert len({name for name, _ in SEEN}) > 10
    """)
    result.assert_outcomes(passed=2)


def test_a_host_on_which_state_is_lost_is_shrunk(run: Pytest) -> None:
    """Each example is judged; the failure shows the smallest host and one report."""
    result = run("""
    @pytest.mark.kvmabi(host=strategies.hosts())
    def test(vcpu):
        if "svcr" in vcpu:
            vcpu["fpsr"] = 1
            vcpu["svcr"] = 1
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "kvmabi: lost: values destroyed by a later SVCR write: fpsr of VM 1 vCPU 0",
        "*sme_bits=(128,)*",
        SECTION,
    ])  # fmt: skip
    assert result.stdout.str().count("events, 1 finding") == 1


def test_given_has_machines_of_its_own(run: Pytest) -> None:
    """``opened`` takes the arguments of the marker, and judges at the end of its block."""
    result = run("""
    from hypothesis import given, settings
    from kvmabi.testing import opened
    @settings(deadline=None)
    @given(host=strategies.hosts())
    def test(host):
        with opened(host=host, ignore="x5") as kvm:
            vcpu = kvm.create_vm().create_vcpu(0)
            vcpu.init()
            vcpu["x6"] = 1
            save = saved(vcpu)
            target = kvm.create_vm().create_vcpu(0)
            target.init()
            restored(target, save)
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *AssertionError: kvmabi: lost: *: x6 of VM 2 vCPU 0", "E *sve_bits=(),*"])


def test_a_fixture_cannot_keep_one_of_many_machines(run: Pytest) -> None:
    """A fixture that uses ``kvm`` where a strategy draws the host fails with one line."""
    result = run("""
    @pytest.fixture
    def vm(kvm):
        return kvm.create_vm()
    @pytest.mark.kvmabi(host=strategies.hosts())
    def test(vm):
        pass
    """)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*kvm is a new one for each host that the strategy draws: use it in the test*"])


def test_a_strategy_does_not_mix_with_given(run: Pytest) -> None:
    """One place draws."""
    result = run("""
    from hypothesis import given, strategies as st
    @pytest.mark.kvmabi(host=strategies.hosts())
    @given(st.integers())
    def test(kvm, number):
        pass
    """)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*kvmabi: a test with @given draws the host as well, and opens it with *.opened"])


# --- other projects


def test_a_project_that_does_not_use_it_loads_none_of_it(pytester: pytest.Pytester) -> None:
    """In a fresh process, pytest imports the plugin's file and nothing else of kvmabi, nor hypothesis through it."""
    pytester.makeconftest("""
    import sys
    def pytest_unconfigure():
        ours = ("kvmabi", "cffi", "hypothesis")
        print("loaded:", *sorted(name for name in sys.modules if name.partition(".")[0] in ours))
    """)
    pytester.makepyfile("def test():\n    pass")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["loaded: kvmabi kvmabi.testing kvmabi.testing.plugin"])


def test_a_projects_own_fixtures_come_first(run: Pytest) -> None:
    """A project with fixtures of the same names keeps them."""
    result = run("""
    @pytest.fixture
    def kvm():
        return "mine"
    def test(kvm):
        assert kvm == "mine"
    """)
    result.assert_outcomes(passed=1)
    result = run("""
    @pytest.fixture
    def kvm_host():
        return kvmabi.load_host("a64fx")
    def test(kvm_host, vcpu):
        assert vcpu.kvm.host is kvm_host
    def test_with_features(vcpu):
        assert "z0" in vcpu
    """)
    result.assert_outcomes(passed=2)


def test_a_test_that_is_run_again_begins_anew(run: Pytest, pytester: pytest.Pytester) -> None:
    """As plugins do that repeat a failed test: the second report is that of the second run."""
    pytester.makeconftest("""
    from _pytest.runner import runtestprotocol
    def pytest_runtest_protocol(item, nextitem):
        for item.config.round in (1, 2):
            for report in runtestprotocol(item, nextitem=nextitem, log=False):
                item.ihook.pytest_runtest_logreport(report=report)
            item._initrequest()
        return True
    """)
    result = run("""
    def test(vcpu, request):
        vcpu["svcr"] = 2
        vcpu["z3"] = bytes([7] * 256)
        if request.config.round == 1:
            vcpu["svcr"] = 3
        assert request.config.round == 1
    """)
    result.assert_outcomes(failed=2)
    assert result.stdout.str().count(" 1 finding") == 1
    result.stdout.fnmatch_lines(["kvmabi: lost*", SECTION, "E *assert 2 == 1", SECTION, "*nothing was judged"])


def test_kvmabi_does_not_need_pytest() -> None:
    """Declared pairs and programs can be used where neither pytest nor hypothesis is installed."""
    program = (
        "import sys; sys.modules.update(pytest=None, hypothesis=None)\n"
        "from kvmabi.testing import restored, run_program, saved\n"
        "try: from kvmabi.testing import strategies\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "kvmabi.testing.strategies needs hypothesis: pip install 'kvmabi[testing]'\n"


@pytest.mark.slow
def test_workers_of_xdist_report_as_one_process_does(run: Pytest) -> None:
    """Sections and names reach the process that prints them."""
    result = run(
        "@pytest.mark.kvmabi(host=['sme-demo', 'sme-sve512-sme512'])\ndef test(vcpu):"
        + LOSES
        + "\ndef test_green(vcpu):\n    pass",
        "-n2",
        fresh=True,
    )
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["kvmabi: lost: *: z3 of VM 1 vCPU 0", SECTION])
