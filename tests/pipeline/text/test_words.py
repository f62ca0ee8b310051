import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline.text.classes import ALPHA, PUNCTUATION, character_classes
from corpusmill.pipeline.text.words import WORD_RULES, base_powers, hash_word, new_words, walk_words, word_rule_classes

PUNCTUATION_MARKS = frozenset(".,-_!…")
FIND = {"words": re.compile(r"\w+|[^\w\s]").findall, "whitespace": str.split}
TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ab _.…\n\u3000é\u0301漢😀7")), max_size=60)


def walk(text: str, rule: str):
    data = np.frombuffer(b"x" + text.encode() + b"x", np.uint8)
    words = new_words(len(data))
    classes = word_rule_classes(rule, character_classes(PUNCTUATION_MARKS))
    return walk_words(data, 1, len(data) - 1, classes, base_powers(), words), words


@pytest.mark.parametrize("rule", WORD_RULES)
@given(text=TEXT)
@settings(deadline=None, max_examples=200)
def test_words_are_those_of_the_rule(rule: str, text: str) -> None:
    count, words = walk(text, rule)
    expected = FIND[rule](text)
    assert count == len(expected)
    assert words.hashes[:count].tolist() == [int(hash_word(word)) for word in expected]
    assert words.ends[: count + 1].tolist() == [len("".join(expected[:n])) for n in range(count + 1)]
    assert words.joined[: count + 1].tolist() == [int(hash_word("".join(expected[:n]))) for n in range(count + 1)]
    joined = "".join(expected).encode()
    assert words.bytes[: len(joined) + 16].tobytes() == joined + bytes(16)
    assert words.places[:count].tolist() == [len("".join(expected[:n]).encode()) for n in range(count)]
    for word, kind in zip(expected, words.kinds[:count]):
        assert bool(kind & ALPHA) == any(c.isalpha() for c in word)
        assert bool(kind & PUNCTUATION) == all(c in PUNCTUATION_MARKS for c in word)


def test_words_longer_than_the_table_of_powers() -> None:
    text = "a" * 3000 + " " + "é" * 5000 + " b"
    count, words = walk(text, "words")
    assert count == 3
    assert int(words.joined[3]) == int(hash_word(text.replace(" ", "")))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(KeyError):
        word_rule_classes("spaces", character_classes())
