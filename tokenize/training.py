"""Training byte-level BPE with `tokenizers` on counted words.

The trainer of `tokenizers` takes text, not counts, so each word is fed as often as it was counted, already in the byte
alphabet and separated by spaces (which that alphabet does not have). The merges are those that the text itself gives.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from corpusmill.pipeline.byte_alphabet import byte_characters, to_bytes, to_characters
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.tokenize.patterns import PatternName
from corpusmill.tokenize.words import splitter

#: Repetitions of a word in one string handed to the trainer: bounds memory, and is enough to amortise the call.
REPEAT = 1000


def train_bpe(counts: Iterable[tuple[str, int]], vocabulary_size: int, minimum_frequency: int, pattern: PatternName) -> Any:
    """A `tokenizers.Tokenizer` with the special tokens as ids 0, 1, ..., then the 256 bytes, then the merges.

    Raises InputError where the words do not give that many merges.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=minimum_frequency,
        show_progress=False,
        initial_alphabet=byte_characters(),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
    )
    tokenizer.train_from_iterator(_repeated(counts), trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocabulary_size:
        raise InputError(
            f"tokenizer: the sample supports a vocabulary of {reached}, not of {vocabulary_size}: "
            f"lower tokenizer.vocabulary_size, or give more documents."
        )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter(pattern), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _repeated(counts: Iterable[tuple[str, int]]) -> Iterator[str]:
    for word, count in counts:
        spaced = to_characters(word) + " "
        whole, rest = divmod(count, REPEAT)
        for _ in range(whole):
            yield spaced * REPEAT
        if rest:
            yield spaced * rest


def ranks_of(tokenizer: Any) -> dict[bytes, int]:
    """The id of each token's bytes, special tokens left out: ids are ranks, in the order of the merges."""
    special = set(tokenizer.get_added_tokens_decoder())
    return {to_bytes(token): number for token, number in tokenizer.get_vocab().items() if number not in special}
