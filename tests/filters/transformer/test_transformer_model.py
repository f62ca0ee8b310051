"""Tests batches by length, and texts as sequences of tokens."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from corpusmill.filters.transformer_model import EncodedTexts, batches, encode, even_rows, padded_lengths

# ---- lengths

LONGEST = st.sampled_from([8, 96, 512, 1000, 8192])


@st.composite
def lengths(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    longest = draw(LONGEST)
    return np.array(draw(st.lists(st.integers(1, longest), max_size=200)), np.int64), longest


def test_padded_lengths() -> None:
    tokens = np.array([1, 7, 8, 63, 64, 127, 128, 129, 255, 256, 480, 511, 512])
    assert padded_lengths(tokens, 512).tolist() == [8, 8, 16, 64, 72, 128, 144, 144, 256, 288, 512, 512, 512]
    assert padded_lengths(np.array([99, 100]), 100).tolist() == [100, 100]


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
    assert [batch.length for batch in found] == sorted((batch.length for batch in found), reverse=True)


@given(lengths(), st.integers(1, 20000))
def test_the_shape_of_a_batch_depends_on_its_members_alone(drawn: tuple[np.ndarray, int], budget: int) -> None:
    """Each member alone gets the shape that it has in its batch, with padding where the other members have padding."""
    tokens, longest = drawn
    for batch in batches(tokens, longest, budget):
        assert len(set(tokens[batch.members] == batch.length)) == 1
        for count in set(tokens[batch.members].tolist()):
            (alone,) = batches(np.array([count]), longest, budget)
            assert (alone.rows, alone.length) == (batch.rows, batch.length)


def test_rows_are_powers_of_two() -> None:
    assert [even_rows(fit) for fit in (0, 1, 2, 3, 4, 5, 7, 8, 31, 32)] == [1, 1, 1, 1, 4, 4, 4, 8, 16, 32]


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
    assert sum(len(ids) == 60 for ids in expected) > 50
    for at_once in (1 << 20, 3000):  # all at once, and a text or a few at a time
        monkeypatch.setattr("corpusmill.filters.transformer_model.BYTES_AT_ONCE", at_once)
        found = encode(tokenizer, pa.array(texts, pa.large_string()), 60, windows=False)
        assert lists(found) == expected
        assert found.document.tolist() == list(range(len(texts)))


@pytest.mark.parametrize(("window", "overlap"), [(20, 0), (20, 7), (60, 30)])
def test_windows_hold_all_of_a_text(tokenizer, real_texts: list[str], hostile_texts: list[str], window: int, overlap: int) -> None:
    texts = [*real_texts[::7], "", *hostile_texts]
    found = encode(tokenizer, pa.array(texts, pa.large_string()), window, windows=True, overlap=overlap)
    given, (first, last) = lists(found), tokenizer("")["input_ids"]
    for place, text in enumerate(texts):
        ids, room, step = tokenizer(text, add_special_tokens=False)["input_ids"], window - 2, window - 2 - overlap
        starts = range(0, max(len(ids) - overlap, 1), step)
        mine = [given[number] for number in np.flatnonzero(found.document == place)]
        assert mine == [[first, *ids[start : start + room], last] for start in starts]


def test_only_the_head_is_tokenised(tokenizer) -> None:
    found = encode(tokenizer, pa.array(["éa word and more", "x"], pa.large_string()), 60, windows=False, head_characters=6)
    assert lists(found) == [tokenizer("éa wor")["input_ids"], tokenizer("x")["input_ids"]]


def test_token_types_go_along_where_the_tokenizer_has_them(regression: str, topics: str) -> None:
    text = pa.array(["some text"], pa.large_string())
    assert lists(encode(AutoTokenizer.from_pretrained(regression), text, 60, windows=False), "token_type_ids")[0][:2] == [0, 0]
    assert list(encode(AutoTokenizer.from_pretrained(topics), text, 60, windows=False).inputs) == ["input_ids"]


def test_no_texts(tokenizer) -> None:
    for windows in (True, False):
        found = encode(tokenizer, pa.array([], pa.large_string()), 60, windows)
        assert found.offsets.tolist() == [0] and len(found.document) == 0 and len(found.inputs["input_ids"]) == 0
