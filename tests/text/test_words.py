"""Compares words by the word rules and by `str.split` with plain Python."""

import re
import unicodedata
from functools import cache

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.text.utf8 import ALPHA, PUNCTUATION, character_classes
from corpusmill.text.words import (
    UNSPACED,
    WORD_RULES,
    base_powers,
    count_words,
    hash_word,
    new_words,
    walk_words,
    word_rule_classes,
)

PUNCTUATION_MARKS = frozenset(".,-_!…")
UNSPACED_CHARACTER = regex.compile(f"[{UNSPACED}]", regex.V1)


def find_characters(text: str) -> list[str]:
    words, run = [], ""
    for character in [*text, " "]:
        unspaced = UNSPACED_CHARACTER.match(character)
        if run and (unspaced or not re.match(r"\w", character)):
            words.append(run)
            run = ""
        if unspaced:
            words += [] if unicodedata.category(character)[0] == "M" or character.isspace() else [character]
        elif re.match(r"\w", character):
            run += character
        elif not character.isspace():
            words.append(character)
    return words


FIND = {"words": re.compile(r"\w+|[^\w\s]").findall, "whitespace": str.split, "characters": find_characters}
TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ab _.…\n\u3000é\u0301漢😀7กำข้カー")), max_size=60)


@cache
def classes_of(rule: str) -> np.ndarray:
    return word_rule_classes(rule, character_classes(PUNCTUATION_MARKS))


def text_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def walk(text: str, rule: str):
    data = np.frombuffer(b"x" + text.encode() + b"x", np.uint8)
    words = new_words(len(data))
    return walk_words(data, 1, len(data) - 1, classes_of(rule), base_powers(), words), words


@pytest.mark.parametrize("rule", WORD_RULES)
@given(text=TEXT)
def test_words_are_those_of_the_rule(rule: str, text: str) -> None:
    count, words = walk(text, rule)
    expected = FIND[rule](text)
    assert count == len(expected) == count_words(text_bytes(text), 0, len(text.encode()), classes_of(rule))
    assert words.hashes[:count].tolist() == [int(hash_word(word)) for word in expected]
    assert words.ends[: count + 1].tolist() == [len("".join(expected[:n])) for n in range(count + 1)]
    joined = "".join(expected)
    assert words.prefixes[: len(joined) + 1].tolist() == [int(hash_word(joined[:n])) for n in range(len(joined) + 1)]
    for word, kind in zip(expected, words.kinds[:count]):
        assert bool(kind & ALPHA) == any(c.isalpha() for c in word)
        assert bool(kind & PUNCTUATION) == all(c in PUNCTUATION_MARKS for c in word)


def test_a_character_of_an_unspaced_script_is_a_word() -> None:
    assert find_characters("Das ist 東京タワー, ภาษาไทย!") == ["Das", "ist", *"東京タワー", ",", *"ภาษาไทย", "!"]
    count, _ = walk("Das ist 東京タワー, ภาษาไทย!", "characters")
    assert count == 2 + 5 + 1 + 7 + 1
    assert walk("ที่นี่", "characters")[0] == 2  # marks above and below letters are not counted
