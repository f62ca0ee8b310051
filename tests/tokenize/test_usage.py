"""Uses of tokens against encoding everything, and tokens that can't be produced against tiktoken."""

import numpy as np
import pyarrow as pa
from tiktoken import _tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from corpusmill.pipeline.token_bytes import byte_characters
from corpusmill.tokenize.encode import Encoder
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.usage import never_produced, token_uses, usage
from corpusmill.tokenize.words import splitter

BYTES = {bytes([byte]): byte for byte in range(256)}
RANKS = BYTES | {b"ab": 256, b"abc": 257, b"\xe6\x9d": 258, b"wxyz": 259, b"a b": 260, b"b ": 261}


def test_uses_are_those_of_the_text(tokenizers_by_pattern, english):
    encoder = Encoder.from_json(tokenizers_by_pattern("gpt2"))
    words = pa.array([" the", "ing", " 東京", "a"], pa.large_string())
    uses = token_uses(encoder, words, np.array([5, 2, 1, 3]))
    wanted = np.zeros(encoder.vocabulary_size, np.int64)
    for word, count in zip(words.to_pylist(), (5, 2, 1, 3), strict=True):
        for number in encoder.encode_word(word):
            wanted[number] += count
    assert uses.tolist() == wanted.tolist() and uses.sum() > 11


def test_tiktoken_takes_a_whole_piece_so_only_the_pattern_can_part_a_token():
    encoder = Encoder.from_ranks(RANKS, PATTERNS["gpt2"], "x")
    bpe = _tiktoken.CoreBPE(RANKS, {}, PATTERNS["gpt2"])
    found = never_produced(encoder, {number: token for token, number in RANKS.items()})
    lost = [number for token, number in RANKS.items() if token.isascii() and bpe.encode_ordinary(token.decode()) != [number]]
    assert found == lost == [260, 261]
    assert bpe.encode_single_piece(b"\xe6\x9d") == [258]


def test_merges_that_lose_to_others_are_those_that_tokenizers_loses():
    """`qrs` has no merge; of `wxyz`, `xy` is merged first, and then nothing is left of `wx` and `yz`."""
    vocabulary = {character: number for number, character in enumerate(byte_characters())}
    merges = [("x", "y"), ("w", "x"), ("y", "z"), ("wx", "yz"), ("a", "b")]
    for token in [*("".join(pair) for pair in merges), "qrs"]:
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter("gpt2"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    encoder = Encoder.from_json(tokenizer.to_str().encode())
    found = never_produced(encoder, {number: token for token, number in encoder.ranks.items()})
    lost = [number for token, number in vocabulary.items() if token.isascii() and tokenizer.encode(token).ids != [number]]
    assert found == lost == [vocabulary["wxyz"], vocabulary["qrs"]]


def test_a_trained_tokenizer_can_produce_all_of_its_tokens(tokenizers_by_pattern):
    for pattern in ("gpt2", "cl100k", "o200k"):
        encoder = Encoder.from_json(tokenizers_by_pattern(pattern))
        assert never_produced(encoder, {number: token for token, number in encoder.ranks.items()}) == []


def test_report(tokenizers_by_pattern):
    encoder = Encoder.from_json(tokenizers_by_pattern("gpt2"))
    uses = np.full(encoder.vocabulary_size, 50)
    by_id = {number: token for token, number in encoder.ranks.items()}
    single, first, second = encoder.ranks[b"\xff"], *[number for number, token in sorted(by_id.items()) if len(token) > 1][:2]
    uses[[single, first, second]] = 0, 9, 0
    found = usage(encoder, uses, 10)
    assert (found["unused_tokens"], found["unused_bytes"], found["undertrained"]["tokens"]) == (2, 1, 3)
    assert found["undertrained"]["worst"] == [
        {"id": second, "text": by_id[second].decode(), "uses": 0}, {"id": first, "text": by_id[first].decode(), "uses": 9},
    ]  # fmt: skip
    assert found["never_produced"] == {"tokens": 0, "first": []}
