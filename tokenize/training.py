"""From counted words to a `tokenizers.Tokenizer`: byte-level BPE with special tokens, the 256 bytes, and the merges of `bpe_train.py`."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.token_bytes import byte_characters
from corpusmill.tokenize.bpe_train import Ties, train
from corpusmill.tokenize.words import splitter


def train_bpe(
    counts: pa.Table,
    vocabulary_size: int,
    minimum_frequency: int,
    regex: str,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    ties: Ties = "ids",
    progress: Callable[[int], None] = lambda merges: None,
) -> Any:
    """A `tokenizers.Tokenizer` with the special tokens as ids 0, 1, ..., then the 256 bytes, then the merges.

    `counts` has the columns `word` and `count`; a word may come more than once. `progress` is told how many merges have been made since
    the last call. Raises InputError where the words do not give that many merges.
    """
    characters = byte_characters()
    tokens = [*special_tokens, *sorted(characters)]  # as `tokenizers` orders them
    ids = {token: number for number, token in enumerate(tokens)}
    data, offsets = text_buffers(counts["word"])
    number = counts["count"].to_numpy()
    merges = train(data, offsets, number, [ids[c] for c in characters], vocabulary_size, minimum_frequency, ties, progress)
    reached = merges.first + len(merges.pairs)
    if reached < vocabulary_size:
        raise InputError(
            f"tokenizer: the sample supports a vocabulary of {reached}, not of {vocabulary_size}: "
            f"lower tokenizer.vocabulary_size (512 is the least), or give more documents."
        )
    pairs = []
    for left, right in merges.pairs.tolist():
        pairs.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    if len(set(tokens)) != len(tokens):
        learned = next(token for token in special_tokens if tokens.count(token) > 1)
        raise InputError(f"tokenizer: the special token {learned!r} was learned as a word of the sample: put marks around it.")
    return make_tokenizer(tokens, pairs, regex, special_tokens)


def make_tokenizer(tokens: Sequence[str], merges: Sequence[tuple[str, str]], regex: str, special_tokens: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer of these tokens in the order of their ids, which cuts text by a regular expression."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, list(merges)))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter(regex), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
