"""Tests that the sample depends on ids, lengths, groups and the seed alone, and has the requested shares."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline.errors import InputError
from corpusmill.tokenize.documents import hashes
from corpusmill.tokenize.sampling import MOST_GROUPS, add_sizes, buckets_of, columns_needed, in_sample, plan_sample, sizes_of
from corpusmill.tokenize.tokenizer_config import SampleConfig, groups_config


def documents(sizes, **columns):
    ids = [f"doc{n}" for n in range(len(sizes))]
    return pa.table({"id": ids, "text": pa.array(["x" * size for size in sizes], pa.large_string()), **columns})


def config(**options):
    return SampleConfig(**{"mb": 1, **options})


def sample(table, options, shards=1):
    """Returns the groups by name and the sampled documents, from a corpus in some shards."""
    grouped = groups_config(options)
    step = -(-table.num_rows // shards) or 1
    pieces = [table.slice(start, step) for start in range(0, table.num_rows, step)]
    groups = plan_sample(add_sizes([sizes_of(piece, grouped) for piece in pieces]), options)
    cutoffs = {group.name: group.cutoff for group in groups}
    taken = pa.concat_tables([in_sample(piece, grouped, cutoffs) for piece in pieces])
    return {group.name: group for group in groups}, taken


@settings(max_examples=40)
@given(st.lists(st.integers(0, 90_000), min_size=1, max_size=60), st.integers(0, 3), st.integers(1, 4))
def test_the_sample_is_just_enough_text(sizes, seed, shards):
    table = documents(sizes)
    groups, taken = sample(table, config(seed=seed), shards)
    (group,) = groups.values()
    size = sum(map(len, taken["text"].to_pylist()))
    assert (group.sampled_documents, group.sampled_bytes) == (taken.num_rows, size)
    assert (group.documents, group.utf8_bytes) == (len(sizes), sum(sizes))
    if sum(sizes) <= 1_000_000:
        assert size == sum(sizes)
    else:
        order = hashes(table["id"], seed)
        bucket = buckets_of(order) == group.cutoff
        assert size >= 1_000_000 > size - np.array(sizes)[bucket].sum()


def shares(groups):
    total = sum(group.sampled_bytes for group in groups.values())
    return {name: group.sampled_bytes / total for name, group in groups.items()}


def test_weights_and_what_has_none():
    table = documents([1000] * 8000, language=["en"] * 5000 + ["de"] * 2000 + ["fr"] * 900 + [None] * 100)
    groups, taken = sample(table, config(by="language", weights={"en": 3, "de": 1}))
    assert {name: group.share_wanted for name, group in groups.items()} == {"en": 0.75, "de": 0.25}
    assert set(taken["language"].to_pylist()) == {"en", "de"}
    assert shares(groups) == pytest.approx({"en": 0.75, "de": 0.25}, abs=0.01)
    groups, taken = sample(table, config(by="language", weights={"en": 1, "*": 1}))
    assert shares(groups) == pytest.approx({"en": 0.5, "*": 0.5}, abs=0.01)
    assert set(taken["language"].to_pylist()) == {"en", "de", "fr", None} and groups["*"].documents == 3000


def test_a_small_group_is_taken_whole_and_the_others_make_up_for_it():
    table = documents([1000] * 3000, language=["en"] * 1500 + ["de"] * 1400 + ["fr"] * 100)
    groups, _ = sample(table, config(by="language", weights={"en": 1, "de": 1, "fr": 2}))
    assert (groups["fr"].sampled_documents, groups["fr"].share_wanted) == (100, 0.5)
    assert shares(groups) == pytest.approx({"en": 0.45, "de": 0.45, "fr": 0.1}, abs=0.01)
    assert sum(group.sampled_bytes for group in groups.values()) == pytest.approx(1e6, rel=0.01)


@pytest.mark.parametrize(("temperature", "wanted"), [(1, 0.9), (2, 0.75), (1000, 0.5)])
def test_temperature(temperature, wanted):
    table = documents([1000] * 10_000, source=["a"] * 9000 + ["b"] * 1000)
    groups, _ = sample(table, config(by="source", temperature=temperature))
    assert shares(groups)["a"] == pytest.approx(wanted, abs=0.01) == pytest.approx(groups["a"].share_wanted, abs=0.01)


def test_hosts_and_components():
    table = documents(
        [1000] * 3000, url=["http://a.test/x", "https://B.test:80/", None] * 1000, quality=[0.1 * (n % 10) for n in range(3000)]
    )
    groups, _ = sample(table, config(by="host"))
    assert {name: group.documents for name, group in groups.items()} == {"a.test": 1000, "b.test": 1000, None: 1000}
    components = [
        {"name": "good", "where": {"quality": {"min": 0.7}}, "weight": 3},
        {"name": "fair", "where": {"quality": {"min": 0.35}, "host": "a.test"}, "weight": 1},
    ]
    groups, taken = sample(table, config(components=components))
    assert {name: group.documents for name, group in groups.items()} == {"good": 900, "fair": 300}
    assert shares(groups) == pytest.approx({"good": 0.75, "fair": 0.25}, abs=0.01)
    assert all(row["quality"] > 0.35 for row in taken.to_pylist())


def test_what_can_be_no_group_is_said():
    table = documents([10], score=[0.5], tags=[["a"]])
    with pytest.raises(InputError, match=r"no column 'lang', which tokenizer\.sample\.by asks for; it has id, text"):
        columns_needed(groups_config(config(by="lang")), ["id", "text"], "part.parquet")
    for column in ("score", "tags"):
        with pytest.raises(InputError, match=f"'{column}' is .*, which makes no groups: give components with ranges"):
            sizes_of(table, groups_config(config(by=column)))
    with pytest.raises(InputError, match="language 'xx' has a weight, and no document is in it"):
        sample(documents([10], language=["en"]), config(by="language", weights={"en": 1, "xx": 1}))
    with pytest.raises(InputError, match="component 'none' has a weight, and no document"):
        sample(documents([10]), config(components=[{"name": "none", "where": {"id": "x"}, "weight": 1}]))
    many = documents([1] * (MOST_GROUPS + 1), source=[str(n) for n in range(MOST_GROUPS + 1)])
    with pytest.raises(InputError, match=r"1,001 groups, and 1,000 are the most"):
        sample(many, config(by="source"))
