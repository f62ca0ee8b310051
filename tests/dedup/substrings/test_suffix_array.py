"""Repeated passages of real documents, against a suffix array that nobody here wrote."""

from pathlib import Path

import numpy as np
import pytest
from pydivsufsort import divsufsort, kasai
from repeated_passages import without


def suffix_array_repeats(texts: list[str], tokens: int) -> list[set[int]]:
    """For each text its words that lie in a window of `tokens` words that occurs twice in all."""
    known: dict[str, int] = {}
    split = [[known.setdefault(word, len(known)) for word in text.split()] for text in texts]
    numbers: list[int] = []
    for document, words in enumerate(split):
        numbers += [*words, len(known) + document]  # an end of its own
    everything = np.array(numbers, np.uint32)
    suffixes = divsufsort(everything)
    common = kasai(everything, suffixes).astype(np.int64)
    longest = np.zeros(len(everything), np.int64)
    longest[suffixes] = np.maximum(common, np.r_[0, common[:-1]])
    found, at = [], 0
    for words in split:
        starts = np.flatnonzero(longest[at : at + len(words)] >= tokens)
        found.append({place for start in starts.tolist() for place in range(start, start + tokens)})
        at += len(words) + 1
    return found


@pytest.mark.parametrize("tokens", [8, 20, 50])
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
