# SPDX-License-Identifier: MIT
"""A guest as a user gives it: a generator function, from a file or in Python, maybe on a kernel of the past."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Generator
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from kvmabi import fpstate, tables
from kvmabi.errors import UsageError
from kvmabi.guests.cpu import Cpu

Steps = Generator[Any, Any, Any]
GuestFunction = Callable[[Cpu], Steps]
DEFAULT_NAME = "guest"
_modules = count(1)


class OnKernel:
    """A guest whose FP registers are moved by another kernel's protocol, with its bugs: ``OnKernel(guest, "v6.12")``.

    Z registers go through the protocol, and ``yield Preempt()`` and ``yield SoftirqNeon()`` are what the host does in
    between; a write of ZCR_EL1 chooses a shorter vector length. Raises UsageError for a kernel that is not known
    (``kvmabi fpstate variants``).
    """

    def __init__(self, guest: GuestFunction, variant: str) -> None:
        self.guest = generator_function(guest)
        if not isinstance(variant, str):
            raise UsageError(f"a kernel has a name, such as 'v6.12', not {variant!r:.40}")
        fpstate.Ownership(variant, check=None)
        self.variant = variant

    def __repr__(self) -> str:
        return f"OnKernel({self.guest.__name__}, {self.variant!r})"


def generator_function(value: Any) -> GuestFunction:
    """The generator function that a user gave. Raises UsageError for anything else."""
    if not inspect.isgeneratorfunction(value):
        what = getattr(value, "__name__", repr(value)[:60])
        raise UsageError(f"a guest is a generator function, def guest(cpu) with a yield: {what} is not")
    try:
        inspect.signature(value).bind(None)
    except TypeError as error:
        raise UsageError(f"{value.__name__}: a guest takes the cpu: {error}") from None
    found: GuestFunction = value
    return found


class Script:
    """A guest for any number of vCPUs. ``failures`` are the errors of those that failed, one line each.

    ``guest`` is a generator function, or an ``OnKernel``. Raises UsageError for anything else.
    """

    def __init__(self, guest: GuestFunction | OnKernel) -> None:
        self.guest = guest
        self.variant = guest.variant if isinstance(guest, OnKernel) else None
        self.function = guest.guest if isinstance(guest, OnKernel) else generator_function(guest)
        self.failures: list[str] = []

    def failed(self, vm: int, vcpu: int, error: BaseException) -> str:
        """Note that a vCPU's guest failed; returns the line."""
        place = place_of(error, self.function.__code__.co_filename)
        line = f"{place}: {described(error)} (guest of VM {vm} vCPU {vcpu})"
        self.failures.append(line)
        return line


def load(text: str) -> Script:
    """The script that ``FILE.py:NAME`` names. Raises UsageError, with the line where the file fails."""
    path, name = _split(text)
    module = _imported(path)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if is_guest(value)]
        raise UsageError(f"{path} has no {name!r}: {tables.guess(name, known) if known else 'it has no guest'}")
    try:
        return Script(getattr(module, name))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def is_guest(value: Any) -> bool:
    """Whether a value is a guest."""
    return isinstance(value, OnKernel) or inspect.isgeneratorfunction(value)


def named(guest: Any) -> str:
    """How another process finds a guest: FILE.py:NAME. Raises UsageError for one that it cannot find."""
    if isinstance(guest, str):
        path, name = _split(guest)
        return f"{path.absolute()}:{name}"
    if isinstance(guest, OnKernel):
        raise UsageError("a program runs in another process, which finds a guest OnKernel by its name: 'FILE.py:NAME'")
    function = generator_function(guest)
    source, name = inspect.getsourcefile(function), function.__qualname__
    if source is None or not name.isidentifier():
        raise UsageError(f"a program runs in another process: its guest is a function of a module, which {name} is not")
    return f"{Path(source).absolute()}:{name}"


def _split(text: str) -> tuple[Path, str]:
    path, colon, name = text.rpartition(":")
    if not colon:
        path, name = text, DEFAULT_NAME
    if not path.endswith(".py") or not name.isidentifier():
        raise UsageError(f"{text!r:.200} does not name a guest: take FILE.py:NAME")
    return Path(path), name


def _imported(path: Path) -> ModuleType:
    """Import a file as a module of its own; it finds the modules next to it."""
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"kvmabi_guest_{next(_modules)}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.absolute().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{place_of(error, str(path))}: {described(error)}") from None
    finally:
        sys.path.pop(0)
    return module


def place_of(error: BaseException, filename: str) -> str:
    """FILE:LINE of an error: the innermost line of the script's own file."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == filename]
    return f"{filename}:{own[-1].lineno}" if own else filename


def described(error: BaseException) -> str:
    """An error in one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}".replace("\n", " ").removesuffix(": ")
