# SPDX-License-Identifier: MIT
"""What the executor in C and the steps in Python both define is the same."""

from __future__ import annotations

import re

import pytest

from kvmabi.steps import grammar
from kvmabi.steps.backends import vm
from kvmabi.steps.vm import qemu
from kvmabi.steps.vm.compiler import SOURCE

EXECUTOR = SOURCE.read_text("utf-8")
ARGUMENT = SOURCE.with_name("argument.h").read_text("utf-8")
ANSWER = SOURCE.with_name("answer.h").read_text("utf-8")
MACHINES = SOURCE.with_name("machines.h").read_text("utf-8")


def defined(name: str, text: str) -> int:
    """The value of a constant of the source."""
    match = re.search(rf"#define {name}\s+(\w+)", text)
    assert match, name
    return int(match[1], 0)


def test_it_has_every_letter_and_no_other() -> None:
    """The cases of its switch are the letters of the grammar's table."""
    switch = EXECUTOR[EXECUTOR.index("switch (op)") :]
    letters = re.findall(r"case '(.)':", switch)
    assert sorted(letters) == sorted(grammar.LETTERS)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("UNMAPPED", EXECUTOR, grammar.UNMAPPED),
        ("UNTOUCHED", EXECUTOR, grammar.UNTOUCHED),
        ("MAX_DATA", EXECUTOR, grammar.MAX_REGISTER_BYTES),
        ("MAX_DEVICES", MACHINES, grammar.MAX_DEVICES),
        ("MAX_VMS", MACHINES, grammar.MAX_VMS),
        ("MAX_EVENTFDS", ARGUMENT, grammar.MAX_EVENTFDS),
        ("MORE_EVENTFDS", ARGUMENT, grammar.MORE_EVENTFDS),
        ("GUEST_BYTES", MACHINES, grammar.GUEST_BYTES),
        ("PAGE", EXECUTOR, grammar.EDGE_BYTES),
        ("MAX_IDS", ANSWER, grammar.MAX_IDS),
        ("LISTS_KEPT", ANSWER, vm.LISTS_KEPT),
    ],
)
def test_constants_are_the_same(name: str, text: str, value: int) -> None:
    """Addresses, fillings and limits are part of the language."""
    assert defined(name, text) == value


def test_the_greeting_has_the_version() -> None:
    """The line that says it is ready names the version that the other side expects."""
    assert f"kvmabi-executor {defined('VERSION', EXECUTOR)} " == qemu.GREETING


def test_it_reads_words_in_the_grammars_bases() -> None:
    """What is hex and what is decimal in the table is read so in the function that does the step."""
    for letter, call in re.findall(r"case '(.)': (\w+)\(line", EXECUTOR):
        body = re.search(rf"static void {call}\(char \*line.*?\n}}", EXECUTOR, re.DOTALL)
        assert body, call
        bases = re.findall(r"number\(&line, (\d+)\)", body[0])
        kinds = {"number": "10", "count": "10", "vcpu": "10", "room": "10", "ids": "10", "hex": "16", "offset": "16"}
        wanted = [kinds[kind] for _, kind in grammar.LETTERS[letter].words if kind in kinds]
        if letter in "iISPF":  # loops, alternatives and strtol
            continue
        assert bases[: len(wanted)] == wanted, letter
