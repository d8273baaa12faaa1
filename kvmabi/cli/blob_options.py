# SPDX-License-Identifier: MIT
"""Options that the subcommands of ``kvmabi blob`` share, and how they read their files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import Any

from kvmabi.cli import common
from kvmabi.errors import UsageError
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.profiles import features as feature_rules
from kvmabi.snapshot import lengths, opening
from kvmabi.snapshot.snapshot import Fact, Snapshot

DAMAGE = "bad-crc"
"""The rule of a problem after which a file is read on only with --force."""


FILE_HELP = "a migration stream, a snapshot of a VMM, or a directory with one; plain or compressed"


def add_file(parser: ArgumentParser) -> None:
    """The file or directory that holds a snapshot."""
    parser.add_argument("file", metavar="FILE", help=FILE_HELP)


def add_files(parser: ArgumentParser, number: str = "+") -> None:
    """The files or directories that hold snapshots."""
    parser.add_argument("files", nargs=number, metavar="FILE", help=FILE_HELP)


def add_force(parser: ArgumentParser) -> None:
    """The option --force."""
    parser.add_argument("--force", action="store_true", help="go on with a file whose checksum is wrong")


def add_facts(parser: ArgumentParser) -> None:
    """What a format may lack: --sve, --sme, --features."""
    parser.add_argument("--sve", metavar="BITS,…", help="the guest's SVE vector lengths, such as 128,256")
    parser.add_argument("--sme", metavar="BITS,…", help="the guest's SME vector lengths, such as 512")
    parser.add_argument("--features", metavar="F,…", help="the features of KVM_ARM_VCPU_INIT, such as sve,sme,pmu")
    parser.add_argument("--numbers", action="store_true", help="values in text are numbers, not bytes as transferred")
    parser.add_argument(
        "--snapshot", metavar="ID", help="which snapshot of a qcow2 image, by ID or name (default: the last)"
    )


def add_target(parser: ArgumentParser) -> None:
    """The destination: --host and --kernel."""
    parser.add_argument("--host", metavar="H", help="the host that takes the guest: a built-in one or a file")
    parser.add_argument("--kernel", metavar="K", help="its kernel: a built-in one or a file (default: the host's)")


def profiles(args: Namespace) -> tuple[Host | None, Kernel | None]:
    """The destination, None where it is not given. Raises UsageError."""
    host = None if args.host is None else load_host(args.host)
    kernel = args.kernel if args.kernel is not None or host is None else host.kernel
    return host, None if kernel is None else load_kernel(kernel)


def read(path: str, args: Namespace) -> Snapshot:
    """Read a file, and take from the options what it lacks. Raises UsageError."""
    return completed(opening.read(path, numbers=args.numbers, selected=args.snapshot), args)


def read_whole(path: str, args: Namespace) -> Snapshot:
    """As ``read``, for commands that use the registers: a wrong checksum is an error unless --force is given."""
    snapshot = read(path, args)
    if not args.force:
        refuse_damaged(path, snapshot)
    return snapshot


def refuse_damaged(path: str, snapshot: Snapshot) -> None:
    """Raises UsageError for a snapshot whose checksum is wrong."""
    damage = next((problem for problem in snapshot.problems if problem.rule == DAMAGE), None)
    if damage is not None:
        raise UsageError(f"{path}: {damage.text} (--force goes on with what is there)")


def completed(snapshot: Snapshot, args: Namespace) -> Snapshot:
    """The snapshot with what the options add. What the file itself says is not replaced: UsageError."""
    given: dict[str, Any] = {
        "sve_bits": vector_bits("--sve", vars(args).get("sve")),
        "sme_bits": vector_bits("--sme", vars(args).get("sme")),
        "features": features(vars(args).get("features")),
    }
    added = {name: value for name, value in given.items() if value is not None}
    if not added:
        return snapshot
    for name, value in added.items():
        held = getattr(snapshot, name)
        if held is not None and held != value:
            option = {"sve_bits": "--sve", "sme_bits": "--sme"}.get(name, "--features")
            raise UsageError(f"{option}: the file itself says {_text(held)}")
    known = {Fact.FEATURES} if "features" in added else set()
    if added.keys() >= {"sve_bits", "sme_bits"} or (added and snapshot.features == frozenset({"sve"})):
        known.add(Fact.VECTOR_LENGTHS)
    return replace(snapshot, unknown=snapshot.unknown - known, **added)


def vector_bits(option: str, text: str | None) -> tuple[int, ...] | None:
    """A set of vector lengths in bits. Raises UsageError.

    >>> vector_bits("--sve", "256,128"), vector_bits("--sme", "none"), vector_bits("--sve", None)
    ((128, 256), (), None)
    """
    if text is None:
        return None
    words = common.words(text)
    if words in ([], ["none"]):
        return ()
    if not all(word.isascii() and word.isdigit() and len(word) < 6 for word in words):
        raise UsageError(f"{option}: {text!r:.60} is not a list of vector lengths in bits, such as 128,256")
    return lengths.checked(map(int, words), option)


def features(text: str | None) -> frozenset[str] | None:
    """Features of INIT by name; None if none are given. Raises UsageError."""
    if text is None:
        return None
    names = feature_rules.expand(common.words(text))
    common.one_of("vCPU feature", names, feature_rules.table())
    return frozenset(names)


def _text(value: object) -> str:
    if isinstance(value, tuple | frozenset):
        return ",".join(map(str, sorted(value))) or "none"
    return str(value)
