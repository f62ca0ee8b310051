"""Compares the merges with `tokenizers.trainers.BpeTrainer`, and with the CS336 fixture, where bytes decide ties."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.pipeline.token_bytes import byte_characters, to_characters
from corpusmill.text.buffers import text_buffers
from corpusmill.tokenize import bpe_train
from corpusmill.tokenize.bpe_train import train, train_bpe
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.words import WordCounts, splitter

#: Ids of the 256 bytes in the order of `tokenizers`, without special tokens.
BYTE_IDS = [sorted(byte_characters()).index(character) for character in byte_characters()]
NAMES = sorted(byte_characters())


def merges_of(counts, size, minimum=1, ties="ids"):
    """Returns the merges; `counts`: words (str or bytes) and how often each occurs."""
    words = [word.encode() if isinstance(word, str) else word for word in counts]
    offsets = np.cumsum([0, *map(len, words)])
    numbers = np.array(list(counts.values()), np.int64)
    return train(np.frombuffer(b"".join(words), np.uint8), offsets, numbers, BYTE_IDS, size, minimum, ties)


def theirs(texts, size, minimum, pre_tokenizer):
    """Returns the pairs of ids that `tokenizers` merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=minimum, show_progress=False, initial_alphabet=byte_characters())
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return [[model["vocab"][left], model["vocab"][right]] for left, right in model["merges"]]


WORDS = st.one_of(
    st.dictionaries(st.text("ab", min_size=1, max_size=25), st.integers(1, 4), max_size=12),
    st.dictionaries(st.text("abcé", min_size=1, max_size=10), st.integers(1, 9), max_size=30),
    st.dictionaries(st.text("a", min_size=1, max_size=70), st.integers(1, 3), max_size=6),
)


@given(counts=WORDS, more=st.integers(0, 80), minimum=st.integers(1, 3))
def test_random_words(counts, more, minimum):
    texts = [" ".join([to_characters(word)] * number) for word, number in counts.items()]
    wanted = theirs(texts, 256 + more, minimum, pre_tokenizers.Split(" ", "removed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe_train, "FALL", 2)  # the table of pairs is rebuilt most often
        assert merges_of(counts, 256 + more, minimum).pairs.tolist() == wanted


def test_the_cs336_fixture(shared_data):
    """Compares merges and vocabulary: special tokens come first, then bytes, then the first merge."""
    folder = shared_data / "tokenizer" / "cs336_fixtures"
    reference = [tuple(line.split(" ")) for line in (folder / "train-bpe-reference-merges.txt").read_text().splitlines()]
    vocabulary = json.loads((folder / "train-bpe-reference-vocab.json").read_text())
    counts = WordCounts()
    texts = (folder / "corpus.en").read_text().split("<|endoftext|>")
    counts.add_texts(pa.array(texts, pa.large_string()), None, PATTERNS["gpt2"])
    table = counts.tables()[0]
    byte_ids = [vocabulary[character] for character in byte_characters()]
    found = train(*text_buffers(table["word"]), table["count"].to_numpy(), byte_ids, 500, 1, "bytes")
    names = {number: token for token, number in vocabulary.items() if number < found.first}
    merges = []
    for number, (left, right) in enumerate(found.pairs.tolist()):
        merges.append((names[left], names[right]))
        names[found.first + number] = names[left] + names[right]
    assert merges == reference
    assert {token: number for number, token in names.items()} | {"<|endoftext|>": 0} == vocabulary


def test_counts_beyond_32_bits():
    """`tokenizers` counts pairs in 32 bits: there 2^32 + 1 would be 1, and the sum of the two below negative."""
    counts = {"ab": 2**32 + 1, "cd": 5, "xef": 2**31 - 1, "yef": 2**31 - 1, "zz": 2**61}
    found = merges_of(counts, 256 + 6, 2)
    pairs = [NAMES[left] + NAMES[right] if max(left, right) < 256 else "" for left, right in found.pairs.tolist()]
    assert pairs[:3] == ["zz", "ab", "ef"] and pairs[5] == "cd"
    assert found.counts.tolist() == [2**61, 2**32 + 1, 2**32 - 2, 2**31 - 1, 2**31 - 1, 5]


def test_an_interrupted_training_is_interrupted_and_nothing_else():
    """Ctrl-C while a kernel runs is raised after it; raised in numba's own code after a kernel it would kill the process."""
    helper = Path(__file__).parent.parent / "helpers" / "interrupted_training.py"
    done = subprocess.run([sys.executable, str(helper), "3"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


GPT2 = PATTERNS["gpt2"]


def count(texts, regex=GPT2):
    counts = WordCounts()
    counts.add_texts(pa.array(texts, pa.large_string()), None, regex)
    return counts.tables()[0]


def words(**counts):
    return pa.table({"word": pa.array(list(counts), pa.large_string()), "count": np.array(list(counts.values()), np.int64)})


def model(tokenizer):
    return json.loads(tokenizer.to_str())["model"]


@pytest.mark.parametrize("pattern", ["cl100k", "o200k"])
def test_same_model_as_tokenizers_trained_on_the_text(pattern, english, foreign):
    texts, special = english[::10] + foreign[::4], [*SPECIAL_TOKENS, "<|tool|>"]
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


def test_a_special_token_that_is_learned_is_refused():
    with pytest.raises(InputError, match="the special token 'abc' was learned as a word"):
        train_bpe(words(abc=5), 263, 2, GPT2, [*SPECIAL_TOKENS, "abc"])
