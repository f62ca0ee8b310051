"""Compares conditions of a mixture with their meaning in words, and shares with a count of documents one by one."""

import fnmatch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corpusmill.pipeline.errors import InputError
from corpusmill.tokenize.documents import BUCKETS
from corpusmill.tokenize.mixture import (
    MatchConfig,
    Mixture,
    Rehydration,
    components_of,
    copies_of,
    match_config,
    needed_columns,
    shares,
)


def mixture(*components, budget=1000):
    return Mixture.model_validate({"budget_tokens": budget, "components": list(components)})


def config(*wheres):
    return MatchConfig.model_validate({"conditions": [(f"c{n}", where) for n, where in enumerate(wheres)]})


DOCUMENTS = pa.table(
    {
        "url": ["http://a.test/x", "https://user@B.Test:8080/y", None, "http://wiki.b.test/", "no url"],
        "language": ["en", "de", None, "en", "de-AT"],
        "quality": [0.1, 0.5, 0.9, None, float("nan")],
        "cluster_size": [1, 2, 3, 1, 1],
        "adult": [True, False, None, False, True],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"language": "en"}, [0, 3]),
        ({"language": "de*"}, [1, 4]),
        ({"language": ["en", "de"]}, [0, 1, 3]),
        ({"language": None}, [2]),
        ({"quality": {"min": 0.5}}, [1, 2]),
        ({"quality": {"min": 0.1, "max": 0.9}}, [0, 1]),
        ({"cluster_size": 1}, [0, 3, 4]),
        ({"adult": True}, [0, 4]),
        ({"host": "*b.test"}, [1, 3]),
        ({"host": "b.test"}, [1]),
        ({"host": None}, [2, 4]),
        ({"language": "en", "quality": {"max": 1}}, [0]),
    ],
)
def test_conditions(where, rows):
    assert np.flatnonzero(components_of(DOCUMENTS, config(where)) == 0).tolist() == rows


def test_the_first_component_that_fits_counts():
    assert components_of(DOCUMENTS, config({"language": "de"}, {"adult": False}, {"language": "en"})).tolist() == [2, 0, -1, 1, -1]


@given(st.lists(st.text("abx*?[]!.\n", max_size=5), max_size=20), st.text("abx*?[]!.\n", max_size=5))
def test_patterns_are_those_of_the_shell(values, pattern):
    table = pa.table({"source": pa.chunked_array([values[:3], values[3:]], pa.string())})
    wanted = [fnmatch.fnmatchcase(value, pattern) for value in values]
    assert (components_of(table, config({"source": pattern})) == 0).tolist() == wanted


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"language": 3}, r"tokens\.mixture \(c0\): the column 'language' is string, which can't be compared with 3"),
        ({"adult": 1}, "the column 'adult' is bool"),
    ],
)
def test_what_can_not_be_compared_is_one_sentence(where, sentence):
    with pytest.raises(InputError, match=sentence):
        components_of(DOCUMENTS, config(where))


def test_columns_that_are_not_there():
    wanted = config({"host": "a*"}, {"quality": {"min": 1}})
    assert needed_columns(wanted, ["id", "url", "quality"], "x") == ["quality", "url"]
    assert needed_columns(config({}), ["id", "url"], "x") == ["id"]
    with pytest.raises(InputError, match=r"x\.parquet: no column 'quality', which tokens\.mixture asks for \(c1\); it has id, url"):
        needed_columns(wanted, ["id", "url"], "x.parquet")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"components": [{"name": "a", "weight": 0}]}, "greater than 0"),
        ({"components": [{"name": "a", "weight": 1}, {"name": "a", "weight": 2}]}, "two components are called a"),
        ({"components": [{"name": "a/b", "weight": 1}]}, "match pattern"),
        ({"components": [{"name": "a", "weight": 1, "where": {"q": {"min": 2, "max": 1}}}]}, "no number is at least 2"),
    ],
)
def test_wrong_mixtures_are_refused(raw, sentence):
    with pytest.raises(ValidationError, match=sentence):
        Mixture.model_validate({"budget_tokens": 10, **raw})


@given(st.integers(1, 500), st.integers(1, 20_000), st.floats(0.05, 6), st.randoms(use_true_random=False))
def test_a_share_is_met_to_half_a_bucket(count, budget, most, draw):
    tokens = np.array([draw.randrange(1, 100) for _ in range(count)])
    pick = np.array([draw.randrange(BUCKETS) for _ in range(count)], np.uint16)
    histogram = np.bincount(pick, tokens, BUCKETS).astype(np.int64)[None]
    (share,) = shares(mixture({"name": "a", "weight": 3, "max_epochs": most}, budget=budget), histogram)
    copies = copies_of([share], np.zeros(count, np.int16), pick)
    assert share.tokens == (copies * tokens).sum() and share.there == tokens.sum()
    allowed = min(budget, int(share.there * most))
    assert abs(share.tokens - allowed) <= histogram.max() / 2
    assert share.short == (budget - share.tokens if allowed < budget else 0)


def test_weights_divide_the_budget_and_nobody_makes_up_for_who_is_short():
    histograms = np.zeros((3, BUCKETS), np.int64)
    histograms[:, :1000] = [[10], [1], [10]]
    components = ({"name": name, "weight": weight, "max_epochs": 2} for name, weight in (("a", 2), ("b", 1), ("c", 1)))
    found = shares(mixture(*components, budget=24_000), histograms)
    assert [(share.wanted, share.tokens, share.epochs, share.short) for share in found] == [
        (12_000, 12_000, 1.2, 0), (6000, 2000, 2.0, 4000), (6000, 6000, 0.6, 0),
    ]  # fmt: skip


def test_rehydration_takes_small_unknown_and_unlisted_sizes_once():
    table = Rehydration.model_validate({"copies": {"2": 3, "9": 2}})
    sizes = pa.table({"cluster_size": [1, 2, 8, 9, 500, None]})
    found = components_of(sizes, match_config(table))
    every = shares(table, np.ones((3, BUCKETS), np.int64))
    assert copies_of(every, found, np.zeros(6, np.uint16)).tolist() == [1, 3, 3, 2, 2, 1]
    with pytest.raises(InputError, match=r"no column 'cluster_size', which tokens\.rehydrate asks for"):
        needed_columns(match_config(table), ["id"], "x.parquet")
    for wrong in ({}, {0: 1}, {1: 0}, {1: 1001}):
        with pytest.raises(ValidationError):
            Rehydration.model_validate({"copies": wrong})


def test_a_component_without_documents_is_one_sentence():
    with pytest.raises(InputError, match=r"tokens\.mixture: no document for training with text in it belongs to the component b"):
        shares(mixture({"name": "b", "weight": 1}), np.zeros((1, BUCKETS), np.int64))
