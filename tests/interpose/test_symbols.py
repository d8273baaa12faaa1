# SPDX-License-Identifier: MIT
"""Functions are found in ELF files, and nothing is found in broken ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lacking import needs

from interpose.builds import PROGRAM_FLAGS, PROGRAMS, compile_file
from kvmabi.interpose.symbols import HEADER, IDENT, Symbols


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_file(PROGRAMS / "origin.c", tmp_path_factory.mktemp("symbols") / "origin", *PROGRAM_FLAGS)


@needs("nm")
def test_functions_are_those_of_nm(program: Path) -> None:
    """Each function is found at its first and last byte, and not behind it unless another one begins there."""
    done = subprocess.run(["nm", "-S", "--defined-only", program], capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    functions = {int(row[0], 16): (int(row[1], 16), row[3]) for row in rows if len(row) == 4 and row[2] in "tT"}
    assert "restore_guest" in {name for _, name in functions.values()}
    with opened(program) as fd:
        symbols = Symbols(fd)
    for address, (size, name) in functions.items():
        assert symbols.find(address) == (name, 0)
        assert symbols.find(address + size - 1) == (name, size - 1)
        assert symbols.find(address + size) != (name, size)


@needs("readelf")
def test_offsets_are_those_of_the_segments(program: Path) -> None:
    """An offset in the file has the address of its segment; one outside of all segments has none."""
    done = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True)
    loaded = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["LOAD"]]
    with opened(program) as fd:
        symbols = Symbols(fd)
    for words in loaded:
        offset, address, size = int(words[1], 16), int(words[2], 16), int(words[4], 16)
        assert symbols.address_of(offset + size - 1) == address + size - 1
    assert symbols.address_of(1 << 40) is None


def test_library_without_a_symbol_table(tmp_path: Path) -> None:
    """A stripped library has the functions that it exports."""
    source = tmp_path / "library.c"
    source.write_text("int shown(void) { return 1; }\n")
    library = compile_file(source, tmp_path / "library.so", "-shared", "-fPIC", "-s")
    with opened(library) as fd:
        symbols = Symbols(fd)
    addresses = [address for address in range(0x10000) if symbols.find(address) == ("shown", 0)]
    assert len(addresses) == 1


@given(st.binary(max_size=300), st.booleans())
def test_any_file(tmp_path_factory: pytest.TempPathFactory, content: bytes, elf: bool) -> None:
    """A file that is not ELF, or only begins so, has no functions and is not an error."""
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(IDENT + content if elf else content)
    with opened(path) as fd:
        assert Symbols(fd).find(0x1000) is None


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_file(program: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed in the header or anywhere: other functions or none, but no error."""
    content = bytearray(program.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        most = data.draw(st.sampled_from([HEADER.size, len(content)]))
        content[data.draw(st.integers(len(IDENT), most - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    with opened(path) as fd:
        symbols = Symbols(fd)
    for address in (0, 0x1200, 0x1300, (1 << 64) - 1):
        symbols.find(address)
        symbols.address_of(address)
