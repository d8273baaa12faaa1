# SPDX-License-Identifier: MIT
"""Write docs/reference/coverage.md, or check that it is current.

    python scripts/coverage_page.py [--check]

The tables are those of the code: the ioctls of every kind of file and the attributes; the texts are in
scripts/coverage.toml. Exits with 0, or with 1 if --check finds a difference.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import written_page

from kvmabi import uapi
from kvmabi.device import its, vcpuattrs, vgic, vmattrs
from kvmabi.device.attr import Attributes, absent
from kvmabi.device.file import DeviceFile
from kvmabi.device.system import SystemFile
from kvmabi.device.vcpu import VcpuFile
from kvmabi.device.vm import VmFile
from kvmabi.profiles import load_kernel

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reference/coverage.md"
TEXTS = ROOT / "scripts/coverage.toml"
FILES: dict[str, type[DeviceFile]] = {"system": SystemFile, "vm": VmFile, "vcpu": VcpuFile, "device": vgic.ControlFile}
IOCTL_TYPE, TYPE_SHIFT, NUMBER_BITS = 0xAE, 8, 32
NEWEST = "linux-7.3"
EXITS = {
    "KVM_EXIT_INTR": "modelled: a signal ended KVM_RUN",
    "KVM_EXIT_UNKNOWN": "modelled: what KVM_RUN that did not return yet leaves",
    "KVM_EXIT_MMIO": "modelled for scripted guests",
    "KVM_EXIT_HYPERCALL": "modelled for scripted guests: what an SMCCC filter forwards",
    "KVM_EXIT_DEBUG": "modelled for scripted guests: BRK",
    "KVM_EXIT_SYSTEM_EVENT": "modelled for scripted guests: PSCI, and the wake-up of a suspended vCPU",
    "KVM_EXIT_INTERNAL_ERROR": "what a guest's script that failed ends with; no kernel's answer",
}
HEAD = """# What kvmabi models

Written by `scripts/coverage_page.py`; do not edit. Of every ioctl, attribute, capability and exit of the headers:

- *modelled*: answers and effects are those of the kernel of the profile;
- *stored*: arguments are checked as the kernel checks them, and kept as far as later calls depend on them; the
  guest's side of it is missing, or a [scripted guest](../how-to/scripted-guests.md)'s only;
- *refused*: fails as arm64 kernels do, measured on Linux 6.1, 6.12, 7.2 and 7.3;
- *not modelled*: a kernel does something here that kvmabi does not. Events of it have `modelled` False, and `kvmabi
  run` counts them at its end under "kvmabi does not model this".
"""


def texts() -> dict[str, dict[str, object]]:
    """The tables of coverage.toml."""
    return tomllib.loads(TEXTS.read_text("utf-8"))


def ioctls() -> Iterator[tuple[str, int]]:
    """Every ioctl of the headers, by name, and its number."""
    for name, value in sorted(vars(uapi).items()):
        is_request = isinstance(value, int) and 0xFFFF < value < 1 << NUMBER_BITS and name in uapi.IOCTL_ARGUMENTS
        is_plain = isinstance(value, int) and value >> TYPE_SHIFT == IOCTL_TYPE
        if name.startswith("KVM_") and (is_request or is_plain) and not name.startswith("KVM_CAP_"):
            yield name, value


def answer(name: str, number: int, table: Mapping[int, tuple[str, object]], words: dict[str, dict[str, object]]) -> str:
    """What a kind of file does with an ioctl; "" if it does not have it."""
    if number not in table or table[number][0] != name:
        return ""
    for kind in ("refused", "stored"):
        if name in words[kind]:
            return f"{kind}: {words[kind][name]}"
    return "modelled"


def page() -> str:
    """The page."""
    words = texts()
    return "\n".join(
        [
            HEAD,
            "## Ioctls",
            "",
            "Elsewhere than where the table has them, and all that it does not list: EINVAL on a system, VM or vCPU",
            "file, ENOTTY on a device's.",
            "",
            *_table(("ioctl", "file", "answer"), _ioctl_rows(words)),
            "",
            "Without a file: refused with EINVAL on every one.",
            "",
            *_table(("part of an ioctl", "not modelled: what happens"), sorted(words["not_modelled"].items())),
            "",
            "## Attributes",
            "",
            *_table(("file", "group", "attribute", "answer"), _attribute_rows()),
            "",
            "## Capabilities",
            "",
            "What KVM_CHECK_EXTENSION reports on built-in hosts, and what it stands for. A number only limits or",
            "describes; what only guest code would show is not modelled.",
            "",
            *_table(("capability", "stands for"), _capability_rows(words["capabilities"])),
            "",
            "## Exits",
            "",
            *_table(("exit", "answer"), _exit_rows()),
            "",
        ]
    )


def _ioctl_rows(words: dict[str, dict[str, object]]) -> Iterator[tuple[str, str, str]]:
    for name, number in ioctls():
        found = [(kind, answer(name, number, file.table, words)) for kind, file in FILES.items()]
        there = [(kind, what) for kind, what in found if what]
        for kind, what in there:
            yield f"`{name}`", kind, what
        if not there:
            yield f"`{name}`", "", "refused: EINVAL"


def _attribute_rows() -> Iterator[tuple[str, str, str, str]]:
    tables: tuple[tuple[str, Attributes, Iterable[int]], ...] = (
        ("VM", vmattrs.ATTRIBUTES, ()),
        ("vCPU", vcpuattrs.attributes(load_kernel(NEWEST)), ()),
        ("vGICv3", vgic.VGIC, vgic.VgicFile.unmodelled_groups),
        ("ITS", its.ITS, its.ItsFile.unmodelled_groups),
    )
    for file, attributes, unmodelled in tables:
        for (group, attr), attribute in attributes.items():
            can = [word for word, rule in (("get", attribute.get), ("set", attribute.set)) if rule is not None]
            hidden = attribute.present is absent
            what = "refused: ENXIO, after the checks of a set" if hidden else f"modelled: {' and '.join(can)}"
            yield file, str(group), "any other" if attr is None else str(attr), what
        for group in sorted(unmodelled):
            yield file, str(group), "any", "not modelled: ENXIO"


def _capability_rows(capabilities: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name, stands_for in capabilities.items():
        assert isinstance(stands_for, list)
        yield f"`{name}`", "; ".join(_meaning(word) for word in stands_for)


def _meaning(word: str) -> str:
    head, _, rest = word.partition(" ")
    if head in FILES:
        return f"`{rest}` ({head})"
    known = {
        "number": "a number",
        "guest": "not modelled: only guest code shows it",
        "scripted": "what a scripted guest shows",
    }
    more = {"enable": f"KVM_ENABLE_CAP with {rest}", "feature": f"the vCPU feature {rest}"}
    return known.get(word) or more.get(head) or word


def _exit_rows() -> Iterator[tuple[str, str]]:
    for _number, name in sorted(uapi.EXIT_NAMES.items()):
        yield f"`{name}`", EXITS.get(name, "not modelled")


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


if __name__ == "__main__":
    raise SystemExit(written_page.main(PAGE, page(), __doc__))
