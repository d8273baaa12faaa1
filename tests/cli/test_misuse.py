# SPDX-License-Identifier: MIT
"""Misuse ends with 2 (125 for ``run``) and one clear line on stderr, whatever was wrong."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.conftest import Kvmabi, one_line
from kvmabi.profiles import files

HOST = files.builtin_table("hosts/sme-demo.toml")
CAPTURED: dict[str, Any] = {
    "kernel_profile": "sme-v12",
    "cpu": "max",
    "sve_vector_bits": [128],
    "sme_vector_bits": [],
    "capabilities": {"system": {"1": 1}, "vm": {}},
    "registers": {"603000000013c080": "00*8."},
    "features": ["sve"],
    "resets": {},
    "writable_masks": {},
}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "required"),
        ("nonsense", "nonsense"),
        ("--nonsense", "required"),
        ("hosts extra", "extra"),
        ("hosts --host x", "--host"),
        ("kernels --jso n", "n"),
        ("reg", "required"),
        ("reg za.h[256]", "za.h[256]"),
        ("reg zz9", "did you mean"),
        ("reg 0x1ffffffffffffffff", "no register"),
        ("reg -1", "-1"),
        ("reg svcr zt9", "zt9"),
        ("regs --host nowhere", "sme-demo"),
        ("regs --host sme-dmo", "did you mean sme-demo?"),
        ("regs --kernel linux-1.0", "linux-7.3"),
        ("regs --features swe", "sve"),
        ("regs --svcr sm,zb", "zb"),
        ("regs --features sve --svcr sm", "svcr"),
        ("regs --host", "expected"),
        ("regs extra", "extra"),
        ("replay", "required"),
        ("replay /nonexistent/trace", "/nonexistent/trace"),
        ("replay --family xyz f", "sve"),
        ("demo extra", "extra"),
    ],
)
def test_misuse(kvmabi: Kvmabi, line: str, word: str) -> None:
    """Unknown commands, options, hosts, kernels, registers, features and files; choices are named."""
    one_line(kvmabi(*line.split()), 2, word)


@pytest.mark.parametrize(
    "line",
    [
        "run",
        "run --",
        "run --host nowhere -- true",
        "run --kernel nowhere -- true",
        "run --host /nonexistent.json -- true",
        "run --report yaml -- true",
        "run --error-exitcode 256 -- true",
        "run --error-exitcode -1 -- true",
        "run --error-exitcode x -- true",
        "run --nonsense -- true",
        "run --host",
    ],
)
def test_misuse_of_run(kvmabi: Kvmabi, line: str) -> None:
    """Other statuses may be the program's own, so misuse is 125."""
    one_line(kvmabi(*line.split()), 125)


def trace(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


START = ("# host sme-demo", "# seq 1.0", "N 1\tOK")
BAD_TRACES = {
    "empty": b"",
    "only a blank line": b"\n",
    "binary": bytes(range(256)) * 20,
    "zeroes": bytes(5000),
    "no host": trace("N 1\tOK"),
    "unknown host": trace("# host elsewhere", "# seq 1.0", "N 1\tOK"),
    "host as a path": trace("# host ../../etc/passwd", "N 1\tOK"),
    "no steps": trace("# host sme-demo"),
    "no answer": trace(*START, "G 0 6030000000100000"),
    "unknown step": trace(*START, "? 0 1\tOK"),
    "too few words": trace(*START, "S 0\tOK"),
    "vCPU that is no number": trace(*START, "G zero 6030000000100000\tENOEXEC"),
    "id that is no number": trace(*START, "G 0 svcr\tENOEXEC"),
    "negative": trace(*START, "I -1 5 0\tOK"),
    "value that is no hex": trace(*START, "I 0 5 0\tOK", "S 0 6030000000100000 xyz\tOK"),
    "run of a billion": trace(*START, "I 0 5 0\tOK", "S 0 6030000000100000 00*999999999.\tOK"),
    "very long line": trace(*START, "G 0 " + "6" * (2 << 20) + "\tOK"),
    "not UTF-8": trace(*START) + b"G 0 \xff\xfe\tOK\n",
}


@pytest.mark.parametrize("kind", BAD_TRACES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "xz"])
def test_bad_trace(kvmabi: Kvmabi, tmp_path: Path, kind: str, packed: bool) -> None:
    """A file that is not a trace, or a malformed trace, is reported with its name and line."""
    path = tmp_path / ("bad.trace.xz" if packed else "bad.trace")
    path.write_bytes(lzma.compress(BAD_TRACES[kind]) if packed else BAD_TRACES[kind])
    one_line(kvmabi("replay", str(path)), 2, path.name)


def test_damaged_xz(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Garbage, and a file cut off, under the name of a packed trace."""
    path = tmp_path / "bad.trace.xz"
    whole = lzma.compress(trace(*START) * 1000)
    for data in (b"garbage", b"", whole[: len(whole) // 2]):
        path.write_bytes(data)
        one_line(kvmabi("replay", str(path)), 2, "bad.trace.xz")


def test_hosts_folder(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A folder that does not hold the host, or a path that is not a folder."""
    path = tmp_path / "good.trace"
    path.write_bytes(trace(*START))
    one_line(kvmabi("replay", "--hosts", str(tmp_path), str(path)), 2, "sme-demo")
    one_line(kvmabi("replay", "--hosts", str(tmp_path / "none"), str(path)), 2, "sme-demo")
    (tmp_path / "sme-demo.json").write_text("{")
    one_line(kvmabi("replay", "--hosts", str(tmp_path), str(path)), 2, "sme-demo.json")


@pytest.mark.parametrize("what", ["folder", "unreadable", "fifo-like name", "newline"])
def test_file_that_cannot_be_read(kvmabi: Kvmabi, tmp_path: Path, what: str) -> None:
    """Folders, files without permission and names that would break the line."""
    path = tmp_path / ("two\nlines.toml" if what == "newline" else "some.toml")
    if what == "folder":
        path.mkdir()
    elif what == "unreadable":
        path.write_text("")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    for words in (("regs", "--host", str(path)), ("regs", "--kernel", str(path)), ("replay", str(path))):
        one_line(kvmabi(*words), 2)


def test_name_that_is_no_text(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A host's file may have any name; it is printed escaped."""
    path = tmp_path / os.fsdecode(b"odd\xff.toml")
    source = Path(files.__file__).parent / "hosts" / "sme-demo.toml"
    path.write_text(source.read_text("utf-8").replace('name = "sme-demo"', ""), "utf-8")
    one_line(kvmabi("regs", "--host", str(path), "--features", "nonsense"), 2, "nonsense")


@pytest.mark.parametrize("text", ["", "[", "null", "[]", "1", "\0", "[[[[" * 5000, '{"a":' * 5000, "a = ", "\ufeff{}"])
@pytest.mark.parametrize("suffix", [".json", ".toml"])
@pytest.mark.parametrize("option", ["--host", "--kernel"])
def test_file_that_is_not_a_profile(kvmabi: Kvmabi, tmp_path: Path, text: str, suffix: str, option: str) -> None:
    """Not JSON, not TOML, or not a table."""
    path = tmp_path / f"bad{suffix}"
    path.write_text(text, "utf-8")
    one_line(kvmabi("regs", option, str(path)), 2, path.name)


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(-5, 2**65), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(max_size=3)), max_size=2),
)


def fields(table: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The place of every field of a profile, a few of each table."""
    places = []
    for key, value in list(table.items())[:12]:
        places.append((*path, key))
        if isinstance(value, dict):
            places += fields(value, (*path, key))
    return places


def changed(table: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of a profile with another value in one place."""
    first, *rest = place
    return table | {first: changed(table[first], tuple(rest), value) if rest else value}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "name", "table"),
    [
        ("--host", "captured", CAPTURED),
        ("--host", "as TOML", HOST),
        ("--kernel", "sme-v12", {"base": "sme-v12"} | files.builtin_table("kernels/linux-7.3.toml")),
    ],
    ids=["captured", "host", "kernel"],
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_field_of_the_wrong_type(
    kvmabi: Kvmabi, tmp_path: Path, option: str, name: str, table: dict[str, Any], data: st.DataObject
) -> None:
    """Any field of a profile with any value: it is accepted, or refused in one line that names the file."""
    place = data.draw(st.sampled_from(fields(table)))
    wrong = changed(table, place, data.draw(WRONG))
    path = tmp_path / ("x.json" if name != "as TOML" else "x.toml")
    path.write_text(json.dumps(wrong) if name != "as TOML" else as_toml(wrong), "utf-8")
    ended = kvmabi("regs", option, str(path), "--features", "sve")
    if ended.status:
        one_line(ended, 2)


def as_toml(table: dict[str, Any], prefix: str = "") -> str:
    """A profile as TOML: enough of it for these tests (None has no form and is left out)."""
    lines, tables = [], []
    for key, value in table.items():
        name = json.dumps(key)
        if isinstance(value, dict):
            tables.append(as_toml(value, f"{prefix}{name}."))
        elif isinstance(value, list):
            kept = ", ".join(json.dumps(item) for item in value if item is not None)
            lines.append(f"{name} = [{kept}]")
        elif value is not None:
            lines.append(f"{name} = {json.dumps(value)}")
    head = f"[{prefix[:-1]}]" if prefix else ""
    return "\n".join([head, *lines, *tables])
