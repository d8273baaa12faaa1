# SPDX-License-Identifier: MIT
"""``kvmabi blob info``: what a snapshot holds."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from typing import Any

from kvmabi import regid
from kvmabi.cli import blob_options, common, formats
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.snapshot import page
from kvmabi.snapshot.formats import json_
from kvmabi.snapshot.snapshot import Fact, Problem, Snapshot, VcpuSnapshot, mp_state_text
from kvmabi.snapshot.wording import count

EXAMPLE = """\
  kvmabi blob info guest.qemu
  kvmabi blob info snapshot/ --registers
  kvmabi blob info guest.qemu.xz --json
  kvmabi blob info guest.qemu --format html > guest.html

exit status: 0 whole, 1 damaged, 2 misuse or not readable"""
SHOWN = {"pc": "pc", "sp": "sp_el0", "sp_el1": "sp_el1", "pstate": "pstate", "svcr": "svcr", "midr_el1": "midr_el1"}
"""The registers that are always shown, and what they are called there: the core register sp is SP_EL0."""
OPTIONS = {Fact.VECTOR_LENGTHS: "--sve, --sme", Fact.FEATURES: "--features"}
MOST_ITEMS = 32
WIDTH = 100


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    blob_options.add_files(parser)
    parser.add_argument("--registers", action="store_true", help="print every register, too")
    blob_options.add_facts(parser)
    blob_options.add_force(parser)


def run(args: Namespace) -> int:
    """Print what the files hold."""
    snapshots = [(path, blob_options.read(path, args)) for path in args.files]
    if args.format == formats.JSON:
        dicts = [{"file": path, **json_.document(snapshot)} for path, snapshot in snapshots]
        formats.print_json(dicts[0] if len(dicts) == 1 else dicts)
    elif args.format == formats.HTML:
        print(page.write(_page(path, snapshot) for path, snapshot in snapshots))
    else:
        texts = ("\n".join(_lines(path, snapshot, args.registers)) for path, snapshot in snapshots)
        print(common.printable("\n\n".join(texts)))
    return ExitStatus.DIFFERENT if any(snapshot.problems for _, snapshot in snapshots) else ExitStatus.SUCCESS


def _lines(path: str, snapshot: Snapshot, registers: bool) -> Iterator[str]:
    """What a file holds, for people."""
    yield f"{path}: {snapshot.format}, {count(len(snapshot.vcpus), 'vCPU')}"
    for name, value in _facts(snapshot):
        yield from _wrapped(f"  {name}: ", value)
    for vcpu in snapshot.vcpus:
        yield from _vcpu_lines(vcpu, registers)
    for problem in snapshot.problems:
        yield from _wrapped("  problem: ", problem_text(problem))


def problem_text(problem: Problem) -> str:
    """What is wrong with a file, and where."""
    vcpu = "" if problem.vcpu is None else f"vCPU {problem.vcpu}: "
    register = "" if problem.register is None else f"{regid.name_of(problem.register)}: "
    offset = "" if problem.offset is None else f" (at byte {problem.offset:#x})"
    return f"{vcpu}{register}{problem.text}{offset}"


def _facts(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """What a file says of the machine, and what it cannot hold."""
    yield "registers of", snapshot.origin.value
    for name, value in (("host", snapshot.host), ("kernel", snapshot.kernel)):
        if value:
            yield name, value
    if snapshot.features is not None:
        yield "features", ", ".join(sorted(snapshot.features)) or "none"
    for name, lengths in (("SVE vector lengths", snapshot.sve_bits), ("SME vector lengths", snapshot.sme_bits)):
        if lengths is not None:
            yield name, f"{', '.join(map(str, lengths))} bits" if lengths else "none"
    for key, value in snapshot.facts.items():
        if text := _fact(value):
            yield key.replace("_", " "), text
    if snapshot.devices:
        yield "other devices", ", ".join(_device(device) for device in snapshot.devices)
    lacking = [fact for fact in Fact if fact in snapshot.unknown]
    if lacking:
        yield "not in this file", "; ".join(_lack(fact) for fact in lacking)


def _fact(value: Any) -> str:
    """One of a file's facts in words; "" for one that only the JSON has."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and len(value) <= MOST_ITEMS:
        return ", ".join(_device(item) if isinstance(item, dict) else _fact(item) for item in value)
    return str(value) if isinstance(value, str | int | float) else ""


def _lack(fact: Fact) -> str:
    return f"{fact.value} (give {OPTIONS[fact]})" if fact in OPTIONS else fact.value


def _device(device: dict[str, Any]) -> str:
    size_bytes = device.get("size_bytes")
    return str(device.get("name", "?")) + (f" ({size_bytes} bytes)" if size_bytes is not None else "")


def _vcpu_lines(vcpu: VcpuSnapshot, registers: bool) -> Iterator[str]:
    families = Counter(regid.decode(id).family or "other" for id in vcpu.registers)
    counts = ", ".join(f"{count} {family.replace('_', ' ')}" for family, count in families.items())
    mode = "" if vcpu.svcr is None else f", SVCR.SM = {vcpu.sm:d}, SVCR.ZA = {vcpu.za:d}"
    state = "" if vcpu.mp_state is None else f", {mp_state_text(vcpu.mp_state)}"
    yield from _wrapped(
        f"vCPU {vcpu.index}{state}{mode}: ", f"{count(len(vcpu.registers), 'register')}: {counts or 'none'}"
    )
    if vcpu.serror is not None and vcpu.serror[0]:
        yield f"  an SError is pending{f', ESR {vcpu.serror[2]:#x}' if vcpu.serror[1] else ''}"
    shown = [(label, vcpu.value(name)) for name, label in SHOWN.items()]
    shown += [(key, value) for key, value in vcpu.facts.items() if type(value) is int]
    values = [f"{name} = {value:#x}" for name, value in shown if value is not None]
    if values:
        yield from _wrapped("  ", "  ".join(values))
    if registers:
        yield from (f"  {id:#018x} {regid.name_of(id)} = {data.hex()}" for id, data in vcpu.registers.items())


def _page(path: str, snapshot: Snapshot) -> page.Page:
    problems = [(problem.rule, problem_text(problem)) for problem in snapshot.problems]
    return page.Page(
        path,
        [("format", snapshot.format), *_facts(snapshot)],
        ("problem", "what") if problems else (),
        problems,
        snapshot.vcpus,
    )


def _wrapped(start: str, text: str) -> list[str]:
    """A text in lines, whatever characters a file has put into it."""
    clean = common.printable(text).replace("\n", "\\n")
    indent = " " * (len(start) - len(start.lstrip()) + 2)
    return textwrap.wrap(start + clean, WIDTH, subsequent_indent=indent, break_long_words=False) or [start]


COMMAND = Command(
    "info",
    "Show what a snapshot holds: its format, the machine, each vCPU's mode and registers, and what the format cannot "
    "hold.",
    EXAMPLE,
    run,
    options,
    summary="what a snapshot holds",
    formats=(*formats.DATA, formats.HTML),
)
