"""Compares values with a slow version of dolma/taggers/gopher.py (dolma 1.2.1), and with numbers that dolma itself printed."""

import math
import re
from collections import Counter
from collections.abc import Callable
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

PIECES = st.sampled_from([*"aab-*#…\n\n\n  \u2028\u3000漢é😀\0", "the ", "of ", "ab c ", "- ", "…\n", "x" * 300, "x" * 255 + " "])
TEXT = st.lists(st.one_of(PIECES, st.characters(exclude_categories=["Cs"])), max_size=120).map("".join)


def reference(text: str, tagger: str) -> list[float]:
    """Returns the values in the order of the columns, as `get_attributes` makes them; NaN for n-grams that it does not name."""
    if not text:
        return [0.0] * 9 + [math.nan] * 9
    words = text.split()
    characters = sum(map(len, words))
    lines = text.split("\n") if tagger == "gopher_v1" else re.split(r"\n+", text)
    copies = {line: count for line, count in Counter(lines).items() if count > 1}
    values = [
        len(words),
        float(median(map(len, words))) if words else 0.0,
        sum("#" in word or "…" in word for word in words) / max(len(words), 1),
        sum(any(c.isalpha() for c in word) for word in words) / max(len(words), 1),
        sum(word in {"the", "be", "to", "of", "and", "that", "have", "with"} for word in words),
        sum(line.startswith(("*", "-")) for line in lines) / len(lines),
        sum(line.endswith("…") for line in lines) / len(lines),
        sum(copies.values()) / len(lines),
        sum(len(line) * count for line, count in copies.items()) / max(characters, 1),
    ]
    for n in range(2, 11):
        counts = Counter(zip(*[words[place:] for place in range(n)]))
        if not counts:
            values.append(math.nan)
        elif n < 5:
            ngram, count = counts.most_common(1)[0]
            values.append(count * len("".join(ngram)) / max(characters, 1))
        else:
            lengths = {ngram: count * len("".join(ngram)) for ngram, count in counts.items()}
            values.append(sum(lengths[ngram] for ngram, count in counts.items() if count > 1) / max(sum(lengths.values()), 1))
    return values


def check(measure_step: Callable, texts: list[str], tagger: str) -> None:
    columns, _ = measure_step("dolma", {"tagger": tagger}, texts)
    for place, text in enumerate(texts):
        for (name, values), wanted in zip(columns.items(), reference(text, tagger), strict=True):
            assert values[place] == wanted or (math.isnan(values[place]) and math.isnan(wanted)), (name, text[:200])


@pytest.mark.parametrize("tagger", ["gopher_v1", "gopher_v2"])
def test_real_documents(texts: list[str], measure_step: Callable, tagger: str) -> None:
    check(measure_step, texts, tagger)


@given(texts=st.lists(TEXT, min_size=1, max_size=6), tagger=st.sampled_from(["gopher_v1", "gopher_v2"]))
def test_any_text(measure_step: Callable, texts: list[str], tagger: str) -> None:
    check(measure_step, texts, tagger)


def test_numbers_that_dolma_printed(measure_step: Callable) -> None:
    lines = "- the quick brown fox and the lazy dog\n* of # course…\n\nthe quick brown fox and the lazy dog\nto be… or not to be #1\n\nend…"
    block = " ".join(["one two three four five six seven eight nine ten eleven twelve"] * 2 + ["thirteen fourteen"])
    columns, _ = measure_step("dolma", {}, [lines, block, "漢字 かな é"])
    expected = [
        [29, 3.0, 0.1724137931034483, 0.8620689655172413, 10, 0.2857142857142857, 0.2857142857142857, 0.2857142857142857, 0.0,
         0.17777777777777778, 0.28888888888888886, 0.35555555555555557,
         0.36548223350253806, 0.2907488986784141, 0.2043222003929273, 0.1039426523297491, 0.0, 0.0],
        [26, 4.0, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 0.0, 0.1016949152542373, 0.1864406779661017, 0.2542372881355932,
         0.6985446985446986, 0.6411657559198543, 0.5770491803278689, 0.5083207261724659, 0.4301994301994302, 0.3423913043478261],
        [3, 2.0, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 0.0, 0.8, 1.0],
    ]  # fmt: skip
    for place, values in enumerate(expected):
        assert [column[place] for column in columns.values()][: len(values)] == values
    assert all(math.isnan(columns[name][2]) for name in list(columns)[11:])


def test_a_word_of_fifty_megabytes(measure_step: Callable) -> None:
    columns, _ = measure_step("dolma", {}, ["a" * 50_000_000])
    assert columns["dolma_words"] == [1] and columns["dolma_median_word_length"] == [50_000_000.0]
