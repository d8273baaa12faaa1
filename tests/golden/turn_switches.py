# SPDX-License-Identifier: MIT
"""Turns every switch of every kernel profile and proves that a trace, a golden record or a check then fails.

``python -m golden.turn_switches [SWITCH...]`` prints a line a switch and ends with 1 if one went unnoticed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import chain, islice

from golden import devices, packs, sme_players
from golden.lab import Lab
from golden.mainline_players import PLAYERS as MAINLINE
from golden.test_mainline_records import differences as mainline_differences
from golden.test_sme_records import COUNTERS
from golden.test_sme_records import PLAYERS as SME
from golden.test_sme_records import differences as sme_differences
from kvmabi.conformance import load, run, select
from kvmabi.model.system import System
from kvmabi.profiles import Kernel, files, kernel_names
from kvmabi.profiles.kernel import kernel_of, table_of
from kvmabi.profiles.switches import Value, described
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.replay import Result, machine, replay
from kvmabi.steps.trace import Trace

SLOW = frozenset({"restore", "vls_all", "sweep", "reg", "wr"})
BASES = ("sme-v12", "linux-7.3", "linux-7.2")
"""The profiles in which every switch has its default value; one that notices the change is enough."""


def turned(profile: str, switch: str, value: Value) -> Kernel:
    """A kernel profile with one switch at another value."""
    table = deepcopy(table_of(profile))
    table.setdefault("switches", {})[switch] = value
    return kernel_of(f"{profile} with {switch} = {value}", table)


def hosts_of(profile: str) -> list[str]:
    """The recorded hosts that ran a kernel."""
    hosts = packs.names("hosts", ".json")
    return [name.removesuffix(".json") for name in hosts if packs.host(name.removesuffix(".json")).kernel == profile]


def trace_fails(kernel: Kernel, host: str) -> Iterator[str]:
    """The traces of a host that no longer replay."""
    names = {f"sme-{host[4:]}" if host.startswith("sme-") else f"mainline.{host}"}
    system = System(packs.host(host), kernel)
    for name in packs.traces():
        base, _, kind = name.removesuffix(".trace").rpartition(".")
        if base in names and kind != "sweep":
            result = Result()
            replay(Trace(packs.path("traces", name)), machine(system), result)
            if result.mismatches:
                yield f"{name}: {result.mismatches} mismatches"


def record_fails(kernel: Kernel, host: str) -> Iterator[str]:
    """The golden records of a host that the model no longer agrees with."""
    sme = host.startswith("sme-")
    names = (f"{host}.jsonl", f"mainline.{host}.jsonl", f"mainline.sweep-{host}.jsonl")
    for name in names:
        if name in packs.records():
            yield from _record_fails(kernel, name, sme=sme)


def _record_fails(kernel: Kernel, name: str, *, sme: bool) -> Iterator[str]:
    host = name.removesuffix(".jsonl")
    players, differences = (SME, sme_differences) if sme else (MAINLINE, mainline_differences)
    lab = Lab(packs.host(host), kernel)
    for record in packs.read(name):
        if record.get("id") in COUNTERS or record["t"] in SLOW or record["t"] not in players:
            continue
        if differences(lab, record):
            yield f"{name}: {str(record)[:100]}"
    lab.close()


def device_fails(kernel: Kernel, profile: str) -> Iterator[str]:
    """What was recorded about devices under this kernel."""
    name = f"{profile}.steps"
    if name in packs.devices():
        for pack in packs.OF_DEVICES:
            yield from devices.differences(kernel, name, pack)[1]


def nested_fails(kernel: Kernel, profile: str) -> Iterator[str]:
    """The same for what was recorded with EL2."""
    if profile == "sme-v12":
        name = "sme-v12.sve256_sme512_nested"
        lab = Lab(packs.host(name), kernel, always="EL2")
        for record in islice(packs.read(f"{name}.jsonl"), 1500):
            if record["t"] == "acc" and sme_differences(lab, record):
                yield f"{name}: {str(record)[:100]}"
        lab.close()


def smprimap_fails(kernel: Kernel, profile: str) -> Iterator[str]:
    """SMPRIMAP_EL2 on a vCPU with EL2: what was measured is in no record that names the register."""
    from kvmabi import regid

    lab = Lab(packs.host("sme-v12.sve256_sme512_nested"), kernel, always="EL2")
    vcpu = sme_players.started(lab, "SVE+SME", "final")
    vcpu.set(regid.parse("smcr_el2"), 3)
    expected = 3 if profile == "sme-v9" else 0
    if vcpu.number(regid.parse("smprimap_el2")) != expected:
        yield "smprimap_el2"
    lab.close()


def overflow_fails(kernel: Kernel, profile: str) -> Iterator[str]:
    """The warning of a kernel that would corrupt its own memory; no record can hold that."""
    from kvmabi import regid

    lab = Lab(packs.host("sme-v12.sve256_sme256-512-1024"), kernel)
    vcpu = sme_players.started(lab, "SVE+SME")
    pfr1 = regid.parse("id_aa64pfr1_el1")
    value = vcpu.number(pfr1)
    vcpu.set(pfr1, value & ~(15 << 24) | 1 << 24)
    vcpu.finalize()
    vcpu.set(pfr1, value)
    vcpu.set(sme_players.SVCR, 2)
    warned = any(event.what == "warning" for event in lab.log.events)
    lab.close()
    if warned != (profile in ("sme-v9", "sme-v10")):
        yield "the warning of a corrupted kernel"


def cases_fail(kernel: Kernel, profile: str) -> Iterator[str]:
    """The conformance suite's cases about what no record has."""
    with ModelBackend(packs.host(hosts_of(profile)[0]), kernel) as model:
        for outcome in run(model, select(load(), "vcpu.serror-*", "irq.line-of-*")):
            yield from (f"{outcome.case.name}: {difference}" for difference in outcome.differences)


OWN: dict[str, Callable[[Kernel, str], Iterator[str]]] = {
    "zt0_space": overflow_fails,
    "smprimap_reads_smcr": smprimap_fails,
    "serror_outlives_init": cases_fail,
    "irq_line_by_id": cases_fail,
}


def failure(profile: str, switch: str, value: Value) -> str | None:
    """The first thing that fails with a switch turned."""
    kernel = turned(profile, switch, value)
    if switch in OWN:
        return next(OWN[switch](kernel, profile), None)
    for look in (record_fails, trace_fails):
        for host in hosts_of(profile):
            difference = next(look(kernel, host), None)
            if difference:
                return difference
    return next(chain(nested_fails(kernel, profile), device_fails(kernel, profile)), None)


def turns(chosen: list[str]) -> Iterator[tuple[tuple[str, ...], str, Value]]:
    """(profiles, switch, other value): what each profile sets itself, and every default in the base profiles."""
    for name, switch in described().items():
        if chosen and name not in chosen:
            continue
        for profile in kernel_names():
            own = files.builtin_table(f"kernels/{profile}.toml").get("switches", {})
            if name in own:
                yield from (((profile,), name, value) for value in switch.values if value != own[name])
        yield from ((BASES, name, value) for value in switch.values if value != switch.default)


def main() -> int:
    """Turn all switches, or those named."""
    count, noticed, unnoticed = 0, set(), []
    for profiles, name, value in turns(sys.argv[1:]):
        difference = next(filter(None, (failure(profile, name, value) for profile in profiles)), None)
        count += 1
        print(f"{' or '.join(profiles)}: {name} = {value}: {difference or 'NOTHING FAILS'}", flush=True)
        if difference:
            noticed.add(name)
        elif profiles != BASES or name not in noticed:  # a default may have nothing to act on in the base profiles
            unnoticed.append(f"{profiles[0]}: {name}")
    print(f"{count} turns, {len(unnoticed)} unnoticed: {', '.join(unnoticed) or 'none'}")
    return bool(unnoticed)


if __name__ == "__main__":
    sys.exit(main())
