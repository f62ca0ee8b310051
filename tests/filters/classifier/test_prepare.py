"""Tests that equal examples become one, near copies stay together, and the training set is balanced."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.prepare import distinct, mixed, near_clusters, part_of, training_order

# ---- Equal examples become one, near copies stay together, and the training set is balanced and reproducible.


def table(rows, labels=("a", "b")):
    """Makes a table from `(text, answers...)`."""
    columns = {label: pa.array([row[place] for row in rows], pa.int8()) for place, label in enumerate(labels, 1)}
    text = pa.array([row[0] for row in rows], pa.large_string())
    return pa.table({"text": text, "source": pa.array(["s"] * len(rows)), "document": np.arange(len(rows)), **columns})


def test_copies_are_merged_and_contradictions_dropped():
    rows = [
        ("Knead it!", 1, None), ("plank", 0, 1), ("knead  it !", None, 0), ("rivet", 1, 1), ("RIVET", 0, None), ("vice", 1, None),
        ("Vice", 0, None), (" \n", 1, 1),
    ]  # fmt: skip
    examples = table(rows)
    found = distinct(examples, write_form("words", examples["text"]), ["a", "b"])
    kept = found.table.select(["text", "a", "b"]).to_pylist()
    assert kept == [{"text": "Knead it!", "a": 1, "b": 0}, {"text": "plank", "a": 0, "b": 1}, {"text": "rivet", "a": None, "b": 1}]
    assert found.lines.to_pylist() == ["knead it !", "plank", "rivet"]
    assert (found.copies, found.conflicts, found.unanswered, found.blank) == (3, {"a": 2, "b": 0}, 1, 1)
    assert len(set(found.hashes.tolist())) == 3


def test_pieces_of_one_document_and_near_copies_are_one_cluster():
    texts = ["knead it", "plane the plank and sand it", "plane the plank and sand it!", "the oven is hot", "the oven is hot?"]
    examples = table([(text, 1, 0) for text in texts]).set_column(2, "document", pa.array([0, 0, 1, 2, 3]))
    found = distinct(examples, examples["text"].combine_chunks(), ["a"])  # the second example of document 0 is like document 1
    assert len(set(found.cluster[:3])) == 1 and len(set(found.cluster[3:])) == 1 and found.cluster[0] != found.cluster[3]


HASHES = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 8)), min_size=1, max_size=60, unique_by=lambda pair: pair[0])


@given(pairs=HASHES, order=st.randoms(use_true_random=False))
def test_a_cluster_is_in_one_part_whatever_the_order(pairs, order):
    def parts(given):
        hashes, cluster = np.array([pair[0] for pair in given], np.uint64), np.array([pair[1] for pair in given])
        return dict(zip([pair[0] for pair in given], part_of(hashes, cluster, 0.1, 0.1, 3).tolist()))

    found = parts(pairs)
    assert all(len({found[h] for h, c in pairs if c == cluster}) == 1 for cluster in range(9) if any(c == cluster for _, c in pairs))
    shuffled = list(pairs)
    order.shuffle(shuffled)
    assert parts(shuffled) == found
    least = [min(h for h, c in pairs if c == cluster) for cluster in {c for _, c in pairs}]
    assert {h: found[h] for h in least} == parts([(h, number) for number, h in enumerate(least)])  # by the smallest hash alone


ANSWERS = np.array([True] * 100 + [False] * 1000)


@pytest.mark.parametrize("ratio, yes", [(20, 100), (4, 250)])
def test_the_rarer_answer_is_repeated(ratio, yes):
    hashes = mixed(np.arange(1100, dtype=np.uint64), 7)
    order = training_order(hashes, ANSWERS, np.ones(1100), ratio, 1)
    assert int(ANSWERS[order].sum()) == pytest.approx(yes, rel=0.1)
    assert int((~ANSWERS[order]).sum()) == 1000
    counts = np.bincount(order, minlength=1100)[ANSWERS]
    assert counts.max() - counts.min() <= 1


def test_weights_of_sources_and_an_order_that_depends_on_content_alone():
    hashes = mixed(np.arange(1100, dtype=np.uint64), 7)
    repeat = np.where(np.arange(1100) % 2, 2.5, 0.5)
    order = training_order(hashes, ANSWERS, repeat, 100, 1)
    counts = np.bincount(order, minlength=1100)
    assert set(counts[1::2]) == {2, 3} and set(counts[::2]) == {0, 1}
    assert counts[1::2].mean() == pytest.approx(2.5, abs=0.1) and counts[::2].mean() == pytest.approx(0.5, abs=0.1)
    shuffle = np.random.Generator(np.random.PCG64(1)).permutation(1100)
    again = training_order(hashes[shuffle], ANSWERS[shuffle], repeat[shuffle], 100, 1)
    assert hashes[shuffle][again].tolist() == hashes[order].tolist()
    assert np.abs(np.corrcoef(np.arange(len(order)), ANSWERS[order])[0, 1]) < 0.1  # answers are mixed


# ---- Clusters of near copies, compared with all pairs by brute force.


def shingles(text: str) -> set[str]:
    """Returns the 5-character shingles of a text in normal form: lower-case words, one space apart."""
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
