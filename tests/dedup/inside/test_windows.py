"""Compares the kernels over windows of words with brute force."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydivsufsort import divsufsort, kasai
from repeated_passages import repeats, without

from corpusmill.dedup.inside.passages import anchors, cut_windows, windows
from corpusmill.dedup.inside.sections import KeyTable
from corpusmill.text.buffers import text_buffers

PIECES = ["a", "b", "a ", " b", "b\n", "\n\na", " ", "é ", "漢", "字", "ก", "ก้", "์", "、", "ʼ ", "\x1c", "\x85"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def buffers(texts: list[str]):  # type: ignore[no-untyped-def]
    return text_buffers(pa.array(texts, pa.large_string()))


def cut(texts: list[str], tokens: int, keep: str) -> tuple[list[str], list[int]]:
    """Performs all four phases on one shard by the kernels alone."""
    data, offsets = buffers(texts)
    anchor = (tokens + 1) // 2
    found, counts = np.unique(anchors(data, offsets, tokens, anchor), return_counts=True)
    keys, where, places = windows(data, offsets, tokens, anchor, KeyTable(found[counts > 1]).table)
    seen = Counter(keys.tolist())
    first: dict[int, tuple[int, int]] = {}
    for key, text, word in zip(keys.tolist(), where.tolist(), places.tolist(), strict=True):
        first.setdefault(key, (text, word) if keep == "first" else (-1, -1))
    chosen = [key for key, count in seen.items() if count > 1]
    rows, words_ = (np.array([first[key][i] for key in chosen], np.int64) for i in (0, 1))
    table = KeyTable(np.array(chosen, np.uint64), rows, words_)
    new, spans = cut_windows(data, offsets, np.arange(len(texts)), tokens, table)
    new.validate(full=True)
    return new.to_pylist(), spans.tolist()


def runs(places: set[int]) -> int:
    return sum(place - 1 not in places for place in places)


@given(st.lists(TEXT, max_size=5), st.integers(2, 9), st.sampled_from(["first", "none"]))
def test_every_repeat_is_found_and_nothing_else(texts: list[str], tokens: int, keep: str) -> None:
    expected = repeats(texts, tokens, keep)
    found, spans = cut(texts, tokens, keep)
    assert found == [without(text, gone) for text, gone in zip(texts, expected, strict=True)]
    assert spans == [runs(gone) for gone in expected]


@pytest.mark.parametrize("text", ["x y " * 300_000 + "z", "".join(f"{i:x} " for i in range(30_000)) * 2], ids=["periodic", "twice"])
def test_a_large_text_of_repeats(text: str) -> None:
    """Time that grew with the square of the words would not end."""
    (found,), spans = cut([text], 50, "first")
    assert spans == [1] and len(found) < len(text) * 0.51 and text.startswith(found.removesuffix(" z"))


def test_passages_do_not_glue_words() -> None:
    passage = " ".join(f"p{i}" for i in range(8))
    texts = [passage, f"one {passage} two", f"three\n\n{passage} four", f"five {passage}\n\nsix", f"漢{passage}字", f"\n{passage}"]
    assert cut(texts[:-1], 8, "first")[0] == [passage, "one two", "three\n\nfour", "five\n\nsix", "漢 字"]
    assert cut(texts, 8, "none")[0][-1] == ""


def suffix_array_repeats(texts: list[str], tokens: int) -> list[set[int]]:
    """Returns for each text the words in any window of `tokens` words that occurs at least twice."""
    known: dict[str, int] = {}
    split = [[known.setdefault(word, len(known)) for word in text.split()] for text in texts]
    numbers: list[int] = []
    for document, found in enumerate(split):
        numbers += [*found, len(known) + document]  # a different end mark for each text
    everything = np.array(numbers, np.uint32)
    suffixes = divsufsort(everything)
    common = kasai(everything, suffixes).astype(np.int64)
    longest = np.zeros(len(everything), np.int64)
    longest[suffixes] = np.maximum(common, np.r_[0, common[:-1]])
    found, at = [], 0
    for document in split:
        starts = np.flatnonzero(longest[at : at + len(document)] >= tokens)
        found.append({place for start in starts.tolist() for place in range(start, start + tokens)})
        at += len(document) + 1
    return found


@pytest.mark.parametrize("tokens", [8, 50])
def test_passages_of_near_duplicates(tokens: int, shared_data: Path, dedup) -> None:  # type: ignore[no-untyped-def]
    texts = [file.read_text() for file in sorted((shared_data / "dedup" / "info4300_100docs").glob("*.txt"))]
    play = next((shared_data / "text").rglob("*hakespeare*.txt")).read_text()
    texts += [play[at : at + 8_000] for at in range(0, 200_000, 5_000)]  # each shares 3,000 characters with the next
    cut = suffix_array_repeats(texts, tokens)
    assert sum(map(len, cut)) > 20_000
    off = {"enabled": False}
    result = dedup([texts[:60], texts[60:]], exact=off, minhash=off, substrings={"tokens": tokens, "keep": "none"})
    expected = [without(text, gone) for text, gone in zip(texts, cut, strict=True)]
    assert result.kept == [text for text in expected if text]
