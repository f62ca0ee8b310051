"""The tokenizer that is made of the merges: what `tokenizers` makes of the same text."""

import json

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.pipeline.token_bytes import byte_characters
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.training import train_bpe
from corpusmill.tokenize.words import WordCounts, splitter

GPT2 = PATTERNS["gpt2"]


def count(texts, regex=GPT2):
    counts = WordCounts()
    counts.add_texts(pa.array(texts, pa.large_string()), None, regex)
    return counts.tables()[0]


def words(**counts):
    return pa.table({"word": pa.array(list(counts), pa.large_string()), "count": np.array(list(counts.values()), np.int64)})


def model(tokenizer):
    return json.loads(tokenizer.to_str())["model"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_model_as_tokenizers_trained_on_the_text(pattern, english):
    texts, special = english[::10], [*SPECIAL_TOKENS, "<|tool|>"]
    theirs = Tokenizer(models.BPE())
    cut = [splitter(PATTERNS[pattern]), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    theirs.pre_tokenizer = pre_tokenizers.Sequence(cut)
    trainer = trainers.BpeTrainer(
        vocab_size=1500, min_frequency=2, show_progress=False, initial_alphabet=byte_characters(), special_tokens=special
    )
    theirs.train_from_iterator(texts, trainer)
    ours = train_bpe(count(texts, PATTERNS[pattern]), 1500, 2, PATTERNS[pattern], special)
    assert model(ours) == model(theirs)
    assert json.loads(ours.to_str())["added_tokens"] == json.loads(theirs.to_str())["added_tokens"]


def test_ids_begin_with_the_special_tokens_and_the_bytes(english):
    tokenizer = train_bpe(count(english[::20]), 700, 2, GPT2, [*SPECIAL_TOKENS, "<|a|>", "<|b|>"])
    assert [tokenizer.id_to_token(number) for number in range(6)] == [*SPECIAL_TOKENS, "<|a|>", "<|b|>"]
    ranks = Encoder.from_json(tokenizer.to_str().encode()).ranks
    assert sorted(ranks.values()) == list(range(6, 700))
    assert {token for token, rank in ranks.items() if rank < 262} == {bytes([byte]) for byte in range(256)}


def test_a_vocabulary_that_the_sample_does_not_support_is_refused():
    with pytest.raises(InputError, match="supports a vocabulary of 262, not of 1000"):
        train_bpe(words(abc=5), 1000, 2, GPT2)


def test_a_special_token_that_is_learned_is_refused():
    with pytest.raises(InputError, match="the special token 'abc' was learned as a word"):
        train_bpe(words(abc=5), 263, 2, GPT2, [*SPECIAL_TOKENS, "abc"])
