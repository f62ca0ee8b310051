"""Tests batches by length, and texts as sequences of tokens."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from corpusmill.filters.transformer_model import EncodedTexts, batches, encode

# ---- lengths

LONGEST = st.sampled_from([8, 96, 512, 1000, 8192])


@st.composite
def lengths(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    longest = draw(LONGEST)
    return np.array(draw(st.lists(st.integers(1, longest), max_size=200)), np.int64), longest


@given(lengths(), st.integers(1, 20000))
def test_every_sequence_is_in_one_batch_that_fits(drawn: tuple[np.ndarray, int], budget: int) -> None:
    tokens, longest = drawn
    found = list(batches(tokens, longest, budget))
    members = np.concatenate([batch.members for batch in found]) if found else np.zeros(0)
    assert sorted(members) == list(range(len(tokens)))
    for batch in found:
        assert 1 <= len(batch.members) <= batch.rows
        assert batch.rows == 1 or batch.rows * batch.length <= budget
        assert tokens[batch.members].max() <= batch.length <= longest
        for count in (tokens[batch.members].min(), tokens[batch.members].max()):  # alone they have the shape that they have here
            (alone,) = batches(np.array([count]), longest, budget)
            assert (alone.rows, alone.length) == (batch.rows, batch.length)
    assert [batch.length for batch in found] == sorted((batch.length for batch in found), reverse=True)


# ---- Tokens against the tokenizer's own, one text at a time.


@pytest.fixture(scope="module", params=["regression", "topics"])
def tokenizer(request: pytest.FixtureRequest):
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


def lists(found: EncodedTexts, name: str = "input_ids") -> list[list[int]]:
    return [found.inputs[name][start:end].tolist() for start, end in pairwise(found.offsets)]


def test_a_text_is_cut_off_as_the_tokenizer_cuts_it(
    tokenizer, real_texts: list[str], hostile_texts: list[str], hard_texts, monkeypatch
) -> None:
    texts = real_texts + hostile_texts + hard_texts
    expected = [tokenizer(text, truncation=True, max_length=60)["input_ids"] for text in texts]
    assert sum(len(ids) == 60 for ids in expected) > 15
    for at_once in (1 << 20, 3000):  # all at once, and a text or a few at a time
        monkeypatch.setattr("corpusmill.filters.transformer_model.BYTES_AT_ONCE", at_once)
        found = encode(tokenizer, pa.array(texts, pa.large_string()), 60, windows=False)
        assert lists(found) == expected
        assert found.document.tolist() == list(range(len(texts)))


def test_windows_hold_all_of_a_text(tokenizer, real_texts: list[str], hostile_texts: list[str]) -> None:
    texts, window, overlap = [*real_texts[::4], "", *hostile_texts], 20, 7
    found = encode(tokenizer, pa.array(texts, pa.large_string()), window, windows=True, overlap=overlap)
    given, (first, last) = lists(found), tokenizer("")["input_ids"]
    for place, text in enumerate(texts):
        ids, room, step = tokenizer(text, add_special_tokens=False)["input_ids"], window - 2, window - 2 - overlap
        starts = range(0, max(len(ids) - overlap, 1), step)
        mine = [given[number] for number in np.flatnonzero(found.document == place)]
        assert mine == [[first, *ids[start : start + room], last] for start in starts]
