# SPDX-License-Identifier: MIT
"""Programs run from a test: what comes back, how they are ended, and the fixture ``run_vmm``."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ctools import CC, INCLUDE, ROOT
from lacking import needs

from kvmabi import UsageError, load_host, load_kernel, regid
from kvmabi.events import Kind
from kvmabi.order import Severity
from kvmabi.testing import run_program
from kvmabi.testing.strategies import LENGTHS_BITS

pytest_plugins = ["pytester"]
EXAMPLES = ROOT / "vmm_examples"
TWO_PROCESSES = """
#include "vmm.h"

int main(int argc, char **argv)
{
	static struct reg regs[1024];
	struct vcpu vcpu;
	struct snapshot *saved;
	FILE *file = fopen("snapshot", argc > 1 ? "r" : "w");
	size_t count;

	if (argc == 1) {
		vcpu = running_guest(open_kvm());
		saved = save(&vcpu);
		fwrite(saved->regs, sizeof(struct reg), saved->count, file);
		return fclose(file);
	}
	count = fread(regs, sizeof(struct reg), 1024, file);
	vcpu = make_vcpu(open_kvm());
	for (int final = 0; final < 2; final++) {
		for (size_t i = 0; i < count; i++)
			if (final == (regs[i].id != KVM_REG_ARM64_SVE_VLS && regs[i].id != KVM_REG_ARM64_SME_VLS))
				set_reg(&vcpu, regs[i].id, regs[i].value);
		if (!final)
			finalize(&vcpu);
	}
	return 0;
}
"""
pytestmark = [pytest.mark.slow, needs(CC[0])]


@pytest.fixture(scope="module")
def vmm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled examples."""
    folder = tmp_path_factory.mktemp("vmms")
    for name in ("save_restore", "late_svcr"):
        source = EXAMPLES / f"{name}.c"
        subprocess.run([*CC, "-std=gnu11", f"-I{INCLUDE}", source, "-o", folder / name], check=True)
    return folder


def test_a_right_program_is_judged_and_clean(vmm: Path) -> None:
    """Exit status, output, ioctls and the pair that was compared come back as objects."""
    run = run_program(vmm / "save_restore")
    assert (run.status, run.stderr, run.findings) == (0, "", ())
    assert run.stdout.endswith("registers saved and restored, 0 differ\n")
    assert [(pair.vm, pair.source_vm) for pair in run.judged] == [(2, 1)]
    numbers = [event.number for event in run.events if event.kind is Kind.IOCTL]
    assert numbers == list(range(1, run.verdict.events + 1))


def test_a_wrong_program_has_findings(vmm: Path) -> None:
    """Each with severity, registers and pair, as a Kvm has them; the text is that of ``kvmabi run``."""
    run = run_program(vmm / "late_svcr")
    command = [sys.executable, "-m", "kvmabi", "run", "--saves", "none", "--", str(vmm / "late_svcr")]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert [finding.severity for finding in run.findings] == [Severity.LOST] * len(run.findings)
    assert {"z0", "p15", "za.h[63]"} <= {name for finding in run.findings for name in finding.registers}
    assert _without_times(f"kvmabi: {run.verdict}\n") == _without_times(said)
    svcr = [event for event in run.events if event.register == regid.parse("svcr") and event.what == "KVM_SET_ONE_REG"]
    assert {effect.id for effect in svcr[-1].effects} >= {regid.parse("z0"), regid.parse("p15")}


def test_the_host_and_the_kernel_are_the_callers(vmm: Path) -> None:
    """A host that exists only as an object, and a loaded kernel."""
    host = replace(load_host("sme-demo"), name="wide", sve_vector_bits=LENGTHS_BITS, sme_vector_bits=(2048,))
    run = run_program(vmm / "save_restore", host=host, kernel=load_kernel("sme-v12"))
    assert run.status == 0
    assert any(event.register == regid.parse("za.h[255]") for event in run.events)
    odd = replace(load_kernel("sme-v12"), title="mine")
    with pytest.raises(UsageError, match="is not a built-in kernel"):
        run_program(vmm / "save_restore", kernel=odd)


def test_ignored_registers_and_the_environment_reach_the_program(vmm: Path, tmp_path: Path) -> None:
    """``env`` is all of it, ``cwd`` the folder in which it runs."""
    ids = [id for finding in run_program(vmm / "late_svcr").findings for id in (loss.id for loss in finding.losses)]
    assert run_program(vmm / "late_svcr", ignored=ids).findings == ()
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\npwd; echo $COLOUR; read line || echo end of input; exit 7\n")
    script.chmod(0o755)
    run = run_program("./script", cwd=tmp_path, env={"COLOUR": "red"})
    assert (run.status, run.stdout) == (7, f"{tmp_path}\nred\nend of input\n")


def test_a_program_has_no_input() -> None:
    """What is typed at the test does not reach it."""
    program = "from kvmabi.testing import run_program; run = run_program('cat'); print(run, repr(run.stdout))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input="typed\n", capture_output=True, text=True, check=True)
    assert done.stdout == "VmmRun(argv=('cat',), status=0) ''\n"


def test_what_one_program_saved_another_can_lose(pytester: pytest.Pytester) -> None:
    """The programs of one test share their saves, as commands of one script do; another test's are not seen."""
    (pytester.path / "moves.c").write_text(TWO_PROCESSES)
    flags = ("-std=gnu11", f"-I{INCLUDE}", f"-I{EXAMPLES}")
    subprocess.run([*CC, *flags, "moves.c", "-o", "moves"], cwd=pytester.path, check=True)
    pytester.makepyfile("""
    def test_pair(run_vmm):
        assert run_vmm("./moves").status == 0
        run = run_vmm("./moves", "restore", check=False)
        assert "z0" in {name for finding in run.findings for name in finding.registers}
        assert run.judged[0].from_run.startswith("moves, process ")
    def test_alone(run_vmm):
        run = run_vmm("./moves", "restore", check=False)
        assert not run.judged
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_what_cannot_be_run_is_one_line(tmp_path: Path) -> None:
    """The text of ``kvmabi run``."""
    with pytest.raises(UsageError, match="nowhere"):
        run_program(tmp_path / "nowhere")


def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    """With what it has started, even if both ignore SIGTERM; what it printed is in the error."""
    script = "trap '' TERM; echo hello; sh -c 'trap \"\" TERM; echo $$ > pid; sleep 600' & sleep 600"
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"sh did not end within 4 s\nhello"):
        run_program("sh", "-c", script, cwd=tmp_path, timeout_seconds=4)
    assert time.monotonic() - begin < 30
    pid = int((tmp_path / "pid").read_text())
    assert not _runs(pid)


def test_the_fixture_fails_a_test_that_lost_state(pytester: pytest.Pytester, vmm: Path) -> None:
    """Unless told not to check; the report is a section, and what the program printed is captured."""
    pytester.makepyfile(
        textwrap.dedent(f"""
    import pytest

    def test_right(run_vmm):
        assert run_vmm({str(vmm / "save_restore")!r}).status == 0

    def test_wrong(run_vmm):
        run_vmm({str(vmm / "late_svcr")!r})

    def test_unchecked(run_vmm):
        run = run_vmm({str(vmm / "late_svcr")!r}, check=False)
        assert run.status == 0 and run.findings

    @pytest.mark.kvmabi(host=["sve512-no-sme", "no-sve-no-sme"], fail_on=())
    def test_hosts(run_vmm, kvm_host):
        run = run_vmm({str(vmm / "late_svcr")!r})
        assert run.judged and not run.findings

    def test_slow(run_vmm):
        run_vmm("sleep", "60", timeout_seconds=0.5)

    def test_missing(run_vmm):
        run_vmm("/nowhere")
    """)
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, failed=3)
    assert "During handling" not in result.stdout.str()
    result.stdout.fnmatch_lines([
        "*_ test_wrong _*",
        "*run_vmm(*",
        "E *Failed: kvmabi: lost: *",
        "*Captured stdout call*",
        "*registers restored, svcr last",
        "*- kvmabi -*",
        "*/late_svcr: exit status 0",
        "*z0-31 p0-15*",
        "*_ test_slow _*",
        "kvmabi: sleep did not end within 0.5 s",
        "*_ test_missing _*",
        "kvmabi: *nowhere*",
    ])  # fmt: skip


def _runs(pid: int) -> bool:
    """Whether a process is still there and not a zombie that waits for init."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _without_times(report: str) -> str:
    return re.sub(r"[\d.e-]+ s before|\(process \d+", "", report)
