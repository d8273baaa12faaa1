# SPDX-License-Identifier: MIT
"""The house: imports run downwards only, files stay small, every source says its licence first."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kvmabi"
PAGE = ROOT / "docs/explanation/architecture.md"
BUILT_WITH = {"__main__.py", "build_uapi.py"}
"""Files that the page's table of rooms leaves out."""
MOST_LINES = 450
SPDX = "SPDX-License-Identifier: MIT"

# From the top down: a room sees only rooms on floors below its own.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("testing",),
    ("capture", "conformance", "fleet", "fuzz"),
    ("snapshot",),
    ("interpose", "kvm", "steps", "tracing"),
    ("vcpuruns",),
    ("device", "order"),
    ("callers",),
    ("events", "faults", "guests"),
    ("detail", "model"),
    ("fpstate", "profiles"),
    ("gicnames", "regid"),
    ("memfd",),
    ("build_uapi", "environment", "forks", "hexruns", "tables", "uapi", "waiting", "wholefile"),
    ("errors",),
)
ALONE = {"fpstate": {"errors", "tables"}}
"""Rooms that see less than their floor allows."""
HEIGHTS = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# From the ground up, and the order in which to read them: a file sees only those before it. Rooms have rooms.
INSIDE = {
    "model": (
        *(
            "effects",
            "mode",
            "refusal",
            "state",
            "facts",
            "lines",
            "gicstate",
            "vgic",
            "gicframes",
            "eventfds",
            "smcccfilter",
            "stats",
            "dirtypages",
            "slots",
            "guestmemory",
            "lpis",
            "itstables",
            "itscommands",
            "its",
            "cpuinterface",
            "vmstate",
            "row",
            "registermap",
        ),
        *("core", "vls", "sve", "pmu", "timer", "cache", "idreg", "firmware", "demux", "reset", "sme", "sysreg"),
        *(
            "system",
            "vcpu",
            "affinity",
            "timerlines",
            "vm",
            "interrupts",
            "enabling",
            "lifecycle",
            "vcpuattrs",
            "vgicattrs",
            "run",
            "plan",
        ),
    ),
    "device": (
        *("lifetime", "memory", "watched", "structs", "usercopy", "file", "attr", "eventfds", "interrupts"),
        *("plainfiles", "slots", "guestmemory", "cpuinterface", "runpage", "board", "mark", "vgic", "its"),
        *("vcpuevents", "vcpu", "vcpuattrs", "vmattrs", "vm", "descriptors", "system", "names"),
    ),
    "guests": (
        *("actions", "board", "exits", "guestmemory", "vectors", "sysregs", "cpu", "ownership", "bound", "scripts"),
        *("psci", "hypercalls", "running"),
    ),
    "order": (
        *("values", "causes", "findings", "controllers", "writes", "saves", "lives", "rounds", "moments", "fitting"),
        *(
            "restores",
            "narrowing",
            "choosing",
            "voting",
            "pairing",
            "verdict",
            "edits",
            "comparing",
            "judging",
            "mistaken",
        ),
        *("checker", "kept"),
    ),
    "snapshot": (
        *("snapshot", "source", "packed", "lengths", "infer", "valid", "formats", "opening", "wording"),
        *("access", "vcpus", "saving", "restoring", "trying", "target", "presence", "tolerances", "picture", "page"),
        *("checks", "validate", "comparing", "matrix"),
    ),
    "snapshot.formats": (
        *("format", "gathering", "places", "folders", "lines", "jsonspans"),
        *("bitcode", "idruns", "fcbincode", "fcbitcode", "firecracker"),
        *("tar", "cborskim", "crosvm", "chcore", "chplaces", "cloud_hypervisor"),
        *("qemu_layout", "qemu_cpu_layout", "qemu_vectors", "qemu_cpu"),
        *("qemu_description", "qemu_ram", "qemu_stream", "qemu_tail", "qemu_sections", "qemu_devices", "qemu"),
        *("libvirt_xml", "libvirt", "qcow2", "own_layout", "own", "trace", "json_", "text"),
    ),
    "snapshot.checks": (
        *("rules", "findings", "case", "registers", "modes", "vectors"),
        *("features", "hosts", "idregs", "order", "timers", "formats"),
    ),
    "snapshot.comparing": (*("qemunumbers", "loglines", "sides", "meaning", "difference", "fate", "hostside", "diff"),),
    "snapshot.matrix": (*("commonlengths", "members", "commonids", "blockers", "common", "text", "svg", "matrix"),),
}
CHILDREN = {
    ("kvmabi.device.vcpu", "kvmabi.device.vm"),
    ("kvmabi.device.vgic", "kvmabi.device.vm"),
    ("kvmabi.device.its", "kvmabi.device.vm"),
}
"""A child that names its parent's type, for type checkers only: the only circles there are."""

GENERATED = "kvmabi._uapi_"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_uapi_"))
LICENSED = sorted(
    path
    for folder in ("kvmabi", "include", "vmm_examples", "tests", "scripts")
    for pattern in ("*.py", "*.c", "*.h", "*.toml")
    for path in (ROOT / folder).rglob(pattern)
    if ".mypy_cache" not in path.parts and not path.name.startswith("_uapi_")
)


def module_of(path: Path) -> str:
    """The name under which a source file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The folder or file below kvmabi/ that a module belongs to; "kvmabi" for the package itself."""
    return module.split(".")[1] if "." in module else module


def name_in(room: str, module: str) -> str:
    """The file or the room in a room that a module belongs to; "" if it is elsewhere."""
    inside = module.removeprefix(f"kvmabi.{room}.")
    return "" if inside == module else inside.partition(".")[0]


MODULES = {module_of(path): path for path in SOURCES}


class Import(NamedTuple):
    """A module of kvmabi that a source imports, at its top or inside a function."""

    module: str
    only_types: bool


def imports(node: ast.AST, only_types: bool = False) -> Iterator[Import]:
    """What a piece of source imports of kvmabi; what stands under ``if TYPE_CHECKING`` is for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            assert not child.level, "imports name the module in full"
            source = child.module or ""
            names = [f"{source}.{alias.name}" for alias in child.names]
            modules = [name if name in MODULES or name.startswith(GENERATED) else source for name in names]
        else:
            modules = [alias.name for alias in child.names] if isinstance(child, ast.Import) else []
        yield from (Import(name, only_types) for name in modules if name.split(".")[0] == "kvmabi")
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from imports(ast.Module(child.body, []), only_types=True)
            yield from imports(ast.Module(child.orelse, []), only_types)
        else:
            yield from imports(child, only_types)


def imports_of(module: str) -> list[Import]:
    """What a module imports of kvmabi, except a child's parent."""
    imported = imports(ast.parse(MODULES[module].read_text("utf-8")))
    return [other for other in imported if not (other.only_types and (module, other.module) in CHILDREN)]


def may_see(room: str, other: str) -> bool:
    """Whether a room may import another one."""
    if other == room or (room == "uapi" and other.startswith("_uapi_")):
        return True
    if room in ALONE:
        return other in ALONE[room]
    if other == "kvmabi":  # the package's face: for those who use it
        return room in FLOORS[0] or room in FLOORS[1]
    return other in HEIGHTS and HEIGHTS[other] < HEIGHTS[room]


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"kvmabi"}))
def test_imports_run_downwards(module: str) -> None:
    """No room knows one above it, not even its types; fpstate knows only errors and tables."""
    room = room_of(module)
    assert room in HEIGHTS, f"{room} has no place in the house"
    assert {other.module for other in imports_of(module) if not may_see(room, room_of(other.module))} == set()


@pytest.mark.parametrize("room", INSIDE)
def test_order_inside_rooms(room: str) -> None:
    """A file, or a room in a room, of an ordered room knows only those before it in the reading order."""
    order = INSIDE[room]
    modules = [module for module in MODULES if name_in(room, module)]
    assert sorted(order) == sorted({name_in(room, module) for module in modules})
    for module in modules:
        place = order.index(name_in(room, module))
        inside = {name_in(room, other.module) for other in imports_of(module)} - {"", order[place]}
        assert inside - set(order[:place]) == set(), module


def test_no_circles() -> None:
    """No modules import each other, directly or through others; imports of types and inside functions count."""
    modules = MODULES.keys() - {"kvmabi"}
    graph = {module: {other.module for other in imports_of(module)} & modules for module in modules}
    TopologicalSorter(graph).prepare()


def test_children_name_their_parents_type() -> None:
    """Each allowed pair still exists."""
    for child, parent in CHILDREN:
        assert Import(parent, True) in imports(ast.parse(MODULES[child].read_text("utf-8")))


def test_architecture_page_has_every_room_and_the_reading_order() -> None:
    """docs/explanation/architecture.md names each room in the first column of a table, and the files as listed here."""
    first_cells = [line.split("|")[1] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    names = re.findall(r"`([^`]+)`", " ".join(first_cells))
    files = {path.name for path in PACKAGE.iterdir()}
    assert {f"{room}/" if room in files else f"{room}.py" for room in HEIGHTS} - set(names) == BUILT_WITH
    for order in INSIDE.values():
        start = names.index(order[0])
        assert tuple(names[start : start + len(order)]) == order


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("from kvmabi import regid", Import("kvmabi.regid", False)),
        ("import kvmabi.kvm", Import("kvmabi.kvm", False)),
        ("def f():\n    from kvmabi.model.row import Row", Import("kvmabi.model.row", False)),
        ("from kvmabi.device import VmFile", Import("kvmabi.device", False)),
        ("if TYPE_CHECKING:\n    from kvmabi.device.vm import VmFile", Import("kvmabi.device.vm", True)),
        ("if TYPE_CHECKING:\n    x = 1\nelse:\n    import kvmabi.kvm", Import("kvmabi.kvm", False)),
    ],
)
def test_every_kind_of_import_is_seen(source: str, seen: Import) -> None:
    """An import in any place and spelling counts."""
    assert list(imports(ast.parse(source))) == [seen]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_is_small(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_and_public_names_have_a_docstring(path: Path) -> None:
    """A docstring says what a module, a class or a public function is for."""
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree) or not tree.body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_licence_stands_first() -> None:
    """In every source of ours; generated ones are not kept."""
    first_lines = {path: path.read_text("utf-8").partition("\n")[0] for path in LICENSED}
    assert [path for path, line in first_lines.items() if SPDX not in line and line] == []
    assert len(LICENSED) > 100


def test_command_imports_only_what_it_needs() -> None:
    """Public names are imported at their first use: importing the package costs nothing."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    assert [other for other in imports(tree) if not other.only_types] == []
