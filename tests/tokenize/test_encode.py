"""Ids equal to those of `tokenizers`, for every text."""

import functools
import json
import operator
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, IM_END, IM_START, SPECIAL_TOKENS
from corpusmill.tokenize.encode import LONGEST_PART, Encoder, parts_of
from corpusmill.tokenize.patterns import PATTERNS

#: What patterns treat in some special way: letters of all kinds, digits, marks, white space of all kinds, apostrophes, case folding.
AWKWARD = " \t\n\r\v\f\x1c\x85\xa0\u2003\u2028\u3000'’sStTſreEvVmMlLdDkK\u212a0١Ⅷ²aÄǅʰ中\u0301\u200d\ufeff🙂👩‍👩‍👧/!.-_<|>"
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.sampled_from(AWKWARD), max_size=40),
    st.lists(st.sampled_from([*SPECIAL_TOKENS, "the ", " the", "\n\n", "  ", "it's", "IT'S", "don't", "'ll", "1234", "\r\n", "né"])).map(
        "".join
    ),
)


def reference(content: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content.decode())
    tokenizer.encode_special_tokens = True
    return tokenizer


def test_llama3_cuts_as_cl100k_does():
    assert PATTERNS["llama3"] == PATTERNS["cl100k"]


@pytest.fixture(scope="module", params=["gpt2", "cl100k", "o200k"])
def pair(request, tokenizers_by_pattern):
    content = tokenizers_by_pattern(request.param)
    return Encoder(content), reference(content)


@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
def test_random_text(pair, text):
    encoder, tokenizer = pair
    ids = encoder.encode(text)
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_real_text(pair, english, foreign):
    encoder, tokenizer = pair
    texts = english[::3] + foreign
    assert [encoder.encode(text) for text in texts] == [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def test_special_tokens_in_text_are_text(pair):
    encoder, tokenizer = pair
    ids = encoder.encode(f"{IM_START}user{IM_END}<|endoftext|><|pad|>")
    assert min(ids) >= len(SPECIAL_TOKENS)
    assert tokenizer.decode(ids) == f"{IM_START}user{IM_END}<|endoftext|><|pad|>"


HARD = ["ab", " ", "\r\n", " \n", "中", "e\u0301", "1", "!", "aB", " x"]


@pytest.mark.parametrize("unit", HARD, ids=ascii)
def test_long_texts_in_one_breath(pair, unit):
    """Far beyond the length at which texts are cut; with and without a letter at the end, which matters for white space."""
    encoder, tokenizer = pair
    for text in (unit * (101_000 // len(unit)), unit * (205_000 // len(unit)) + "x y"):
        assert encoder.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("unit", ["a", " "], ids=ascii)
def test_a_million_characters_without_a_word_end_are_encoded_in_linear_time(tokenizers_by_pattern, unit):
    encoder = Encoder(tokenizers_by_pattern("gpt2"))

    def seconds(length):
        started = time.perf_counter()
        encoder.encode(unit * length + "x")
        return time.perf_counter() - started

    short = min(seconds(250_000) for _ in range(2))
    assert seconds(1_000_000) < 12 * short + 0.5  # 4 times the length; a quadratic one would take 16 times the time and more


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.sampled_from("ab  \n1'sé"), max_size=200), longest=st.integers(1, 20))
def test_parts_cut_where_pieces_end(pair, text, longest):
    encoder, _ = pair
    parts = list(parts_of(text, longest))
    assert "".join(parts) == text
    assert functools.reduce(operator.iadd, (encoder.encode(part) for part in parts), []) == encoder.encode(text)
    assert all(len(part) >= longest for part in parts[:-1])


def test_text_longer_than_a_part_is_cut_and_equal(pair, english):
    encoder, tokenizer = pair
    text = "".join(english)[: 3 * LONGEST_PART]
    assert len(list(parts_of(text))) == 3
    assert encoder.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


def test_column_is_the_texts_with_their_ends(pair):
    encoder, _ = pair
    texts = ["Hello world", "", "x"]
    tokens, counts = encoder.encode_column(pa.chunked_array([texts]), EOT_ID)
    assert tokens.dtype == encoder.dtype == "<u2"
    assert tokens.tolist() == [token for text in texts for token in [*encoder.encode(text), EOT_ID]]
    assert counts.tolist() == [len(encoder.encode(text)) + 1 for text in texts]
    assert [len(part) for part in encoder.encode_column(pa.array([], pa.large_string()), EOT_ID)] == [0, 0]


def test_gpt2s_own_vocabulary(shared_data, english, foreign):
    """The published GPT-2 vocabulary and merges: ids equal to those of `tokenizers` on real text."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers

    from corpusmill.tokenize.words import splitter

    folder = shared_data / "tokenizer" / "cs336_fixtures"
    merges = [tuple(line.split(" ")) for line in (folder / "gpt2_merges.txt").read_text().splitlines() if not line.startswith("#version")]
    tokenizer = Tokenizer(models.BPE(json.loads((folder / "gpt2_vocab.json").read_text()), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter("gpt2"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    encoder = Encoder(tokenizer.to_str().encode())
    tokenizer.encode_special_tokens = True
    assert encoder.encode("Hello world") == [15496, 995]
    for text in english[::7] + foreign:
        assert encoder.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("content", [b"{}", b"not json", b'{"model": {"type": "BPE"}}'])
def test_other_files_are_refused(content):
    with pytest.raises(InputError, match=r"some/tokenizer\.json: not a byte-level BPE tokenizer"):
        Encoder(content, "some/tokenizer.json")
