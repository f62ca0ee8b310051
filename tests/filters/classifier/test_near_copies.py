"""Clusters of near copies against all pairs compared by brute force."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.classifier.near_copies import near_clusters


def shingles(text: str) -> set[str]:
    """5-character shingles of a text that is in normal form: lower-case words, one space apart."""
    return {text[place : place + 5] for place in range(len(text) - 4)}


def brute_force(texts: list[str], threshold: float) -> list[int]:
    sets = [shingles(text) for text in texts]
    cluster = list(range(len(texts)))
    for b in range(len(texts)):
        for a in range(b):
            if sets[a] and sets[b] and len(sets[a] & sets[b]) >= threshold * len(sets[a] | sets[b]) - 1e-9:
                old, new = max(cluster[a], cluster[b]), min(cluster[a], cluster[b])
                cluster = [new if number == old else number for number in cluster]
    return cluster


WORDS = ["oven", "butter", "knead", "a", "the", "sourdough", "of", "plank"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join), max_size=25)


@given(texts=TEXTS, threshold=st.sampled_from([0.3, 0.5, 0.7, 0.8, 1.0]))
def test_finds_what_comparing_all_pairs_finds(texts, threshold):
    assert near_clusters(pa.array(texts, pa.large_string()), threshold).tolist() == brute_force(texts, threshold)


def test_edited_texts_of_a_large_set():
    """A thousand texts, each with a copy of which a word or two was changed: nearly all pairs are found by a threshold in between, and all
    that are found by brute force."""
    draw = np.random.Generator(np.random.PCG64(5))
    vocabulary = ["".join(draw.choice(list("abcdefghijklmnop"), int(draw.integers(2, 9)))) for _ in range(3000)]
    texts = []
    for _ in range(1000):
        words = draw.choice(vocabulary, int(draw.integers(5, 30))).tolist()
        copy = list(words)
        copy[int(draw.integers(0, len(words)))] = "changed"
        texts += [" ".join(words), " ".join(copy)]
    found = near_clusters(pa.array(texts, pa.large_string()), 0.6)
    sets = [shingles(text) for text in texts]
    similar = np.array([len(a & b) >= 0.6 * len(a | b) for a, b in zip(sets[::2], sets[1::2])])
    assert similar.sum() > 600
    assert (found[::2] == found[1::2]).tolist() == similar.tolist()
    assert len(np.unique(found)) == 2000 - similar.sum()


def test_case_and_what_stands_between_words_do_not_count():
    texts = ["Knead the dough, then rest it.", "knead THE dough -- then rest it!", "Plane the plank and sand it down."]
    assert near_clusters(pa.array(texts, pa.large_string()), 1.0).tolist() == [0, 0, 2]


@pytest.mark.parametrize("texts", [[], [""], ["abcd"], ["", "", "ab", "ab", "..."]])
def test_texts_without_a_shingle_are_alone(texts):
    assert near_clusters(pa.array(texts, pa.large_string())).tolist() == list(range(len(texts)))
