"""Compares all statistics with datatrove's own functions and sets, on real documents and on texts of every Unicode plane."""

import re

import numpy as np
import pyarrow as pa
import pytest
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from datatrove.utils.word_tokenizers import SpaCyTokenizer
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.gopher import STOP_WORDS
from corpusmill.filters.statistics import LINES, NAMES, NEWLINE_LINES, REPETITION, WORDS, Needs, measure

WORD_RULES = {
    "words": re.compile(r"\w+|[^\w\s]").findall, "whitespace": str.split, "spacy": SpaCyTokenizer("en").word_tokenize,
    "datatrove:fra_Latn": SpaCyTokenizer("fr").word_tokenize,
}  # fmt: skip
ALL = Needs(WORDS | LINES | REPETITION | NEWLINE_LINES, STOP_WORDS, 30)
SMALL = st.sampled_from([*"aab .-•#…\n\n\n\r\u2028\x85\u3000_19é漢😀\0", "...", "the ", "of", "ab c "])
TEXT = st.lists(st.one_of(SMALL, st.characters(exclude_categories=["Cs"])), max_size=150).map("".join)


def reference(text: str, word_rule: str) -> dict[str, int]:
    words = WORD_RULES[word_rule](text)
    nonsymbol = [w for w in words if any(ch not in PUNCTUATION_SET for ch in w)]
    lines = text.splitlines()
    values = {
        "characters": len(text),
        "newlines": text.count("\n"),
        "words": len(words),
        "word_characters": len("".join(words)),
        "nonsymbol_words": len(nonsymbol),
        "nonsymbol_characters": len("".join(nonsymbol)),
        "alpha_words": sum(any(c.isalpha() for c in w) for w in words),
        "stop_words": len(set(STOP_WORDS) & set(words)),
        "hashes": text.count("#"),
        "ellipses": text.count("...") + text.count("…"),
        "lines": len(lines),
        "bullet_lines": sum(s.lstrip().startswith("•") or s.lstrip().startswith("-") for s in lines),
        "ellipsis_lines": sum(s.rstrip().endswith("...") or s.rstrip().endswith("…") for s in lines),
    }
    paragraphs, runs = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    values["paragraphs"], values["line_runs"] = len(paragraphs), len(runs)
    values["repeated_paragraphs"], values["repeated_paragraph_characters"] = find_duplicates(paragraphs)
    values["repeated_line_runs"], values["repeated_line_run_characters"] = find_duplicates(runs)
    for n in (2, 3, 4):
        grams = get_n_grams(words, n)
        values[f"top_{n}"] = find_top_duplicate(grams) if grams else 0
    for n in range(5, 11):
        values[f"duplicated_{n}"] = find_all_duplicate(words, n)
    filled = [line for line in text.split("\n") if line.strip() != ""]
    values["filled_lines"] = len(filled)
    values["terminal_lines"] = sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in filled)
    values["short_lines"] = sum(len(line) <= 30 for line in filled)
    values["repeated_filled_line_characters"] = find_duplicates(filled)[1]
    return values


def check(texts: list[str], word_rule: str) -> None:
    found = measure(pa.array(texts, pa.large_string()), word_rule, ALL)
    expected = [reference(text, word_rule) for text in texts]
    for name in NAMES:
        wanted = np.array([values[name] for values in expected])
        wrong = np.nonzero(found[name] != wanted)[0]
        assert not len(wrong), (name, texts[wrong[0]][:200], int(found[name][wrong[0]]), int(wanted[wrong[0]]))


def test_real_documents(texts: list[str]) -> None:
    check(texts[::4], "spacy")


@pytest.mark.parametrize("word_rule", WORD_RULES)
@given(texts=st.lists(TEXT, min_size=1, max_size=8))
def test_any_text(word_rule: str, texts: list[str]) -> None:
    check(texts, word_rule)


def test_large_texts() -> None:
    one_word = "a" * 3_000_000
    lines = "word " * 200_000 + "\n" * 1000
    found = measure(pa.array([one_word, lines], pa.large_string()), "words", ALL)
    assert found["words"].tolist() == [1, 200_000]
    assert found["top_2"].tolist() == [0, 199_999 * 9]
