"""Compares the counts of a text with Python's own string functions."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.html.features import CAPITALIZED, COMMAS, ENDS, LETTERS, MEASURES, STOPS, UPPER, WORDS, count_equal, measure


def measured(text: str) -> list[int]:
    data = np.frombuffer(text.encode(), np.uint8)
    out = np.zeros(MEASURES, np.int32)
    measure(data, 0, len(data), out)
    return out.tolist()


def test_by_hand() -> None:
    found = measured("A short Line, with 3 stops. Really?! \u4f60\u597d\uff0c\u4e16\u754c\u3002")
    assert found[WORDS] == 8 and found[STOPS] == 4 and found[COMMAS] == 2
    assert found[UPPER] == 3 and found[CAPITALIZED] == 3 and found[ENDS] == 1


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("end.", 1), ("end!", 1), ("end?", 1), ("end:", 2), ("end\u2026", 3), ("end", 0), ("end,", 0), ("end.)", 1), ('end."', 1),
        ("end.\u201d", 1), ("end.\u00bb", 1), ("\u7d42\u3002", 1), ("\u7d42\uff01", 1), ("\u7d42\u3002\u300d", 1), ("\u0905\u0964", 1),
        (")", 0), ("", 0), (".", 1), ("end.)))))", 0),
    ],
)  # fmt: skip
def test_end_marks(text: str, mark: int) -> None:
    assert measured(text)[ENDS] == mark


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80))
def test_ascii_counts_are_those_of_python(text: str) -> None:
    found = measured(text)
    assert found[WORDS] == len(text.split())
    assert found[STOPS] == len(re.findall(r"[.!?]", text)) and found[COMMAS] == text.count(",")
    assert found[UPPER] == sum(c.isupper() for c in text) and found[LETTERS] == sum(c.isalpha() for c in text)
    assert found[CAPITALIZED] == sum(word[0].isupper() for word in text.split())


@given(st.lists(st.integers(0, 5) | st.integers(0, 2**64 - 1), max_size=40))
def test_equal_things_are_counted(keys: list[int]) -> None:
    odd = [key | 1 for key in keys]  # the lowest bit marks a place as taken
    counts = Counter(odd)
    assert count_equal(np.array(odd, np.uint64)).tolist() == [counts[key] for key in odd]
