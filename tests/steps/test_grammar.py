# SPDX-License-Identifier: MIT
"""The table of steps: both spellings, and one clear line for what is not a step."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi.steps.grammar import LETTERS, OPS, WORDS, in_letters, in_words, parse, register_of

SAMPLES = {
    **dict.fromkeys(("file", "vcpu", "count", "number", "room", "ids", "offset"), "0"),
    **dict.fromkeys(("hex", "bytes", "value", "argument"), "a0"),
}
COMMANDS = Path(__file__).parents[2] / "docs/reference/commands.md"


def example(letter: str) -> str:
    """A step of a kind."""
    return " ".join([letter, *(SAMPLES[kind] for _, kind in LETTERS[letter].words)])


def test_letters_and_words_are_unambiguous() -> None:
    """No two kinds of steps share one, and no word is a letter."""
    assert len(LETTERS) == len(WORDS) == len(OPS)
    assert not LETTERS.keys() & WORDS.keys()


@pytest.mark.parametrize("letter", LETTERS)
def test_both_spellings_are_one_step(letter: str) -> None:
    """A step reads the same by its letter and by its word, and each can be written as the other."""
    step = example(letter)
    assert parse(step) == parse(in_words(step))
    assert in_letters(in_words(step)) == step
    assert parse(step)[0] == letter


@pytest.mark.parametrize("letter", LETTERS)
def test_more_words_are_ignored_and_fewer_named(letter: str) -> None:
    """Recordings have noise behind their steps; what is missing is named by what it is."""
    step = example(letter)
    assert parse(f"{step} 3 x") == parse(step)
    if LETTERS[letter].words:
        with pytest.raises(ValueError, match=f"lacks {LETTERS[letter].words[-1][0]}$"):
            parse(step.rpartition(" ")[0])


@pytest.mark.parametrize("letter", LETTERS)
def test_a_word_of_the_wrong_kind_is_an_error(letter: str) -> None:
    """Every word of every step is checked."""
    words = example(letter).split()
    for place in range(1, len(words)):
        for wrong in ("zz", "-", "1_0", "\u0661", "0x", "+1"):
            bent = " ".join([*words[:place], wrong, *words[place + 1 :]])
            if (wrong, LETTERS[letter].words[place - 1][1]) != ("-", "value"):
                with pytest.raises(ValueError, match="is not a step"):
                    parse(bent)


@pytest.mark.parametrize("text", ["", " ", "I 0", "X", "?", "GG 0 1", "g et", "N -1", "R s", "g 0 0 65537", "S 0 0 0"])
def test_what_is_not_a_step_is_a_value_error(text: str) -> None:
    """Never an IndexError or a TypeError."""
    with pytest.raises(ValueError, match="is not a step"):
        parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_step_or_a_value_error(text: str) -> None:
    """Nothing else comes of it."""
    with suppress(ValueError):
        assert isinstance(parse(text), tuple)


def test_values() -> None:
    """Numbers are numbers, bytes are bytes, files are numbers or names."""
    assert parse("S d01 0x6030 00*3.ff")[1] == ("d1", 0x6030, b"\0\0\0\xff")
    assert parse("F 1 -1")[1] == (1, -1)
    assert parse("o v 0 2 -")[1] == ("v", 0, 2, "-")
    assert register_of("G 0 6030") == "6030"
    assert register_of("L 0 6030") == ""


@pytest.mark.parametrize("letter", LETTERS)
def test_the_reference_has_every_step(letter: str) -> None:
    """docs/reference/commands.md lists each with its letter, its word and its words."""
    op = LETTERS[letter]
    names = " ".join([letter, *(name for name, _ in op.words)])
    names = names.replace(" ".join(f"features{n}" for n in range(7)), "features0 … features6")
    assert f"| `{names}` | `{op.word}` |" in COMMANDS.read_text("utf-8")
