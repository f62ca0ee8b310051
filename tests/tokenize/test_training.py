"""Training on counts gives what `tokenizers` gives on the text; the merges are those of the CS336 fixture, up to ties."""

import itertools
import json
from collections import Counter

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from corpusmill.pipeline.byte_alphabet import byte_characters, to_characters
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.training import ranks_of, train_bpe
from corpusmill.tokenize.words import WordCounter, splitter


def count(texts, pattern="gpt2"):
    counter = WordCounter(pattern)
    counter.add(texts, [None] * len(texts))
    return sorted(counter.counts[None].items())


def model(tokenizer):
    return json.loads(tokenizer.to_str())["model"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_model_as_tokenizers_trained_on_the_text(pattern, english):
    texts = english[::10]
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence([splitter(pattern), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=1500, min_frequency=2, show_progress=False, initial_alphabet=byte_characters(), special_tokens=list(SPECIAL_TOKENS)
    )
    theirs.train_from_iterator(texts, trainer)
    ours = train_bpe(count(texts, pattern), 1500, 2, pattern)
    assert model(ours) == model(theirs)


def merge(word, pair):
    """`word` (a tuple of tokens) with each occurrence of `pair`, from the left, made one token."""
    merged, place = [], 0
    while place < len(word):
        if word[place : place + 2] == pair:
            merged.append(pair[0] + pair[1])
            place += 2
        else:
            merged.append(word[place])
            place += 1
    return tuple(merged)


def counts_of_merges(merges, words):
    """For each merge in turn, how often its pair occurs, and how often the most frequent pair does: BPE by its definition."""
    words, found, pairs = dict(enumerate(words)), [], Counter()

    def add(word, number):
        for both in itertools.pairwise(word):
            pairs[both] += number

    for word, number in words.values():
        add(word, number)
    for pair in merges:
        found.append((pairs[pair], max(pairs.values())))
        for key, (word, number) in words.items():
            if pair[0] in word and (merged := merge(word, pair)) != word:
                add(word, -number)
                add(merged, number)
                words[key] = merged, number
    return found


def test_merges_of_the_cs336_fixture(shared_data):
    folder = shared_data / "tokenizer" / "cs336_fixtures"
    reference = [tuple(line.split(" ")) for line in (folder / "train-bpe-reference-merges.txt").read_text().splitlines()]
    counts = count((folder / "corpus.en").read_text().split("<|endoftext|>"))
    trained = model(train_bpe(counts, len(SPECIAL_TOKENS) + 256 + len(reference), 1, "gpt2"))["merges"]
    ours = [tuple(pair) for pair in trained]
    words = [(tuple(to_characters(word)), number) for word, number in counts]
    # Among pairs that are equally frequent the fixture takes the greater bytes, tokenizers the smaller ids; otherwise the
    # merges are determined. So: both only ever merge a most frequent pair, and part only after many ties.
    their_counts, our_counts = counts_of_merges(reference, words), counts_of_merges(ours, words)
    assert all(number == largest for number, largest in their_counts + our_counts)
    assert our_counts[:200] == their_counts[:200]
    assert len(set(ours) & set(reference)) >= 239


def test_ids_begin_with_the_special_tokens_and_the_bytes(english):
    tokenizer = train_bpe(count(english[::20]), 700, 2, "gpt2")
    assert [tokenizer.id_to_token(number) for number in range(4)] == list(SPECIAL_TOKENS)
    ranks = ranks_of(tokenizer)
    assert sorted(ranks.values()) == list(range(4, 700))
    assert {token for token, rank in ranks.items() if rank < 260} == {bytes([byte]) for byte in range(256)}


def test_large_counts_are_counted_in_full():
    tokenizer = train_bpe([("ab", 2500), ("cd", 2499), ("ef", 1)], 262, 1, "gpt2")
    assert model(tokenizer)["merges"] == [["a", "b"], ["c", "d"]]


def test_a_vocabulary_that_the_sample_does_not_support_is_refused():
    with pytest.raises(InputError, match="supports a vocabulary of 262, not of 1000"):
        train_bpe([("abc", 5)], 1000, 2, "gpt2")
