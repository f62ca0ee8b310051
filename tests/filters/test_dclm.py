"""Compares values with DCLM's filters (baselines/mappers/filters/content_filters.py), with fastText's and uniseg's own words."""

import math
import re
from collections import Counter
from collections.abc import Callable

import fasttext
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uniseg.wordbreak import words as uniseg_words

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
SINGLE = "aab-*#…●•.'’:,_\n\n\n \u2028\u3000漢カé\u0301\u200d😀\0"
LONGER = ["the ", "OF ", "Wİth ", "to ", ". . . ", "...", "- ", "…\n", "3.5", "a’b", "\r\n", "ab c ", "ab c ", "ab c "]
SINGLE = "aab-*#…●•.'’:,_\n\n\n \u2028\u3000漢カé\u0301\u200d😀\0"
LONGER = ["the ", "OF ", "Wİth ", "to ", ". . . ", "...", "- ", "…\n", "3.5", "a’b", "\r\n", "ab c ", "ab c ", "ab c "]
PIECES = st.sampled_from([*SINGLE, *LONGER])
TEXT = st.lists(st.one_of(PIECES, st.characters(exclude_categories=["Cs", "Cn"])), max_size=120).map("".join)


def split_paragraphs(text: str, paragraph_end: str) -> list[str]:
    return [p for piece in re.split(paragraph_end, text) if (p := piece.strip())]


def repeated(segments: list[str]) -> list[float]:
    if not segments:
        return [math.nan, math.nan]
    copies = {segment: count for segment, count in Counter(segments).items() if count > 1}
    characters = sum(len(segment) * count for segment, count in copies.items())
    return [sum(copies.values()) / len(segments), characters / sum(map(len, segments))]


def repeated_ngrams(words: list[str], n: int) -> float:
    total = sum(map(len, words))
    ngrams = list(zip(*[words[place:] for place in range(n)]))
    counts = Counter(ngrams).most_common()
    if not total:
        return math.nan
    if not counts or counts[0][1] == 1:
        return 0.0
    if n < 5:
        return max(len("".join(ngram)) for ngram, count in counts if count == counts[0][1]) * counts[0][1] / total
    often = {ngram for ngram, count in counts if count > 1}
    places = {at + place for at, ngram in enumerate(ngrams) if ngram in often for place in range(n)}
    return sum(len(words[place]) for place in places) / total


def reference(text: str) -> list[float]:
    """Returns the values in the order of the columns."""
    words = text.split()
    lines = split_paragraphs(text, "\n")
    ngram_words = [word for word in uniseg_words(text) if word[0].isalnum()]
    values: list[float] = [
        sum(token[0].isalnum() for token in fasttext.FastText.tokenize(text)),
        sum(word.lower() in STOP_WORDS for word in words),
    ]
    if words:
        values.append(sum(map(len, words)) / len(words))
        values.append(sum(text.count(symbol) for symbol in ("#", "...", ". . .", "…")) / len(words))
        values.append(sum(not any(c.isalpha() for c in word) for word in words) / len(words))
    else:
        values += [math.nan] * 3
    if lines:
        values.append(sum(line.startswith(("●", "•", "*", "-")) for line in lines) / len(lines))
        values.append(sum(line.endswith(("...", ". . .", "…")) for line in lines) / len(lines))
    else:
        values += [math.nan] * 2
    values += repeated(lines) + repeated(split_paragraphs(text, "\n\n"))
    return values + [repeated_ngrams(ngram_words, n) for n in range(2, 11)]


def check(measure_step: Callable, texts: list[str]) -> None:
    columns, _ = measure_step("dclm", {}, texts)
    for place, text in enumerate(texts):
        for (name, values), wanted in zip(columns.items(), reference(text), strict=True):
            assert values[place] == wanted or (math.isnan(values[place]) and math.isnan(wanted)), (name, text[:200], values[place], wanted)


def test_real_documents(texts: list[str], measure_step: Callable) -> None:
    check(measure_step, [text[:8_000] for text in texts[::3]])


def test_hard_texts(hard_texts: list[str], measure_step: Callable) -> None:
    check(measure_step, hard_texts)


@given(texts=st.lists(TEXT, min_size=1, max_size=6))
def test_any_text(measure_step: Callable, texts: list[str]) -> None:
    check(measure_step, texts)


def test_values(measure_step: Callable) -> None:
    words = [f"w{n:06d}" + "x" * (n % 4 == 0) for n in range(88)]
    block = " ".join(words[:40] + words[10:22] + words[40:])  # 100 words, in which a block of 12 occurs twice
    eight = "abcd efghi jklm nopq rstu vwxy zabc defgij"
    columns, _ = measure_step("dclm", {}, [block, eight, "", "The OF\n\nthe of\n\nx"])
    assert columns["dclm_dup_5_gram_char_frac"][0] == columns["dclm_dup_10_gram_char_frac"][0] == pytest.approx(0.240, abs=1e-3)
    assert columns["dclm_top_2_gram_char_frac"][1] == 0.0
    assert columns["dclm_words"] == [100, 8, 0, 5] and columns["dclm_stop_words"][3] == 4
    assert columns["dclm_dup_para_frac"][3] == 0.0 and math.isnan(columns["dclm_dup_line_frac"][2])


def test_a_word_of_fifty_megabytes(measure_step: Callable) -> None:
    columns, _ = measure_step("dclm", {}, ["a." * 25_000_000])
    assert columns["dclm_words"] == [1] and columns["dclm_mean_word_length"] == [50_000_000.0]
