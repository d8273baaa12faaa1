# SPDX-License-Identifier: MIT
"""The house: imports run downwards only, files stay small, every source says its licence first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kvmabi"
MOST_LINES = 450
SPDX = "SPDX-License-Identifier: MIT"

# From the top down; a room sees the rooms below it, and those of its own floor that NEIGHBOURS names.
FLOORS = (
    ("cli", "__main__"),
    ("interpose", "conformance", "snapshot", "fpstate", "testing", "fuzz", "capture"),
    ("kvm", "objects", "steps"),
    ("device", "order"),
    ("model",),
    ("profiles",),
    ("regid",),
    ("environment", "events", "hexruns", "tables", "uapi", "build_uapi", "wholefile", "waiting"),
    ("errors",),
)
NEIGHBOURS = {
    ("__main__", "cli"),
    ("kvm", "objects"),
}
ALONE = {"fpstate": {"errors", "tables"}}
GUEST = PACKAGE / "model" / "guest.py"  # where the ownership protocol and the model meet
HEIGHTS = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_uapi_"))
LICENSED = sorted(
    path
    for folder in ("kvmabi", "include", "vmm_examples", "tests", "scripts")
    for pattern in ("*.py", "*.c", "*.h", "*.toml")
    for path in (ROOT / folder).rglob(pattern)
    if ".mypy_cache" not in path.parts and not path.name.startswith("_uapi_")
)


def room_of(path: Path) -> str:
    """The room of a source file: the folder below kvmabi/, or the module itself; programs stand at the top."""
    if path.name == "__main__.py":
        return "__main__"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(node: ast.AST) -> Iterator[str]:
    """The rooms that a piece of source imports when it runs: what only type checkers see does not count."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(child, ast.ImportFrom) and child.module == "kvmabi":
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and child.module.startswith("kvmabi."):
            yield child.module.split(".")[1]
        elif isinstance(child, ast.Import):
            names = (alias.name.split(".") for alias in child.names)
            yield from (name[1] if len(name) > 1 else "kvmabi" for name in names if name[0] == "kvmabi")
        yield from imports(child)


def allowed(room: str, other: str) -> bool:
    """Whether a room may import another one."""
    if other == room or other.startswith("_uapi"):
        return True
    if room in ALONE:
        return other in ALONE[room]
    if other not in HEIGHTS:  # the package itself: the top
        return room in FLOORS[0] or room in FLOORS[1]
    return HEIGHTS[other] < HEIGHTS[room] or (room, other) in NEIGHBOURS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    """No room knows of one above it; fpstate knows none but the errors."""
    room = room_of(path)
    if room == "__init__":
        return
    assert room in HEIGHTS, f"{room} has no place in the house"
    upwards = {other for other in imports(ast.parse(path.read_text("utf-8"))) if not allowed(room, other)}
    if path == GUEST:
        upwards -= {"fpstate"}
    assert not upwards


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
    assert set(imports(tree)) <= {"errors", "events", "kvm", "objects", "order", "profiles"}
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all("kvmabi" not in ast.unparse(node) for node in top)
