"""Byte-level BPE from counted words: the merges that `tokenizers.trainers.BpeTrainer` finds, in a few arrays.

The most frequent pair of neighbouring tokens is made one token, again and again. The words themselves (`bpe_slots.py`) are all the state;
the table of pairs holds those that occur at least a certain number of times. When none is left, that number goes down and the table is made
anew, so memory is that of the words and of the pairs that may be merged soon.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.interrupts import held_interrupts
from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.token_bytes import byte_characters
from corpusmill.tokenize.bpe_merge import (
    FIELDS,
    KNOWN,
    SIZE,
    TOKEN,
    WRITTEN,
    Fixed,
    GrowingArrays,
    compact,
    fill_slots,
    make_heap,
    merge_pairs,
    slots_needed,
    tabulate,
)
from corpusmill.tokenize.words import splitter

#: Of pairs that are equally frequent: `ids` merges the one of smallest ids, as `tokenizers`; `bytes` the one of greatest bytes.
Ties = Literal["ids", "bytes"]
#: How much less frequent than the most frequent pair a pair may be to be in the table.
FALL = 16
#: Sums that tell rare pairs.
SUMS = 1 << 19
#: Merges between two looks at progress and Ctrl-C.
CHUNK = 1000
MOST_SLOTS = 1 << 32
MOST_COUNT = 1 << 62


class LearnedMerges(NamedTuple):
    """What was learned: `pairs` int64 [merges, 2], the ids of both parts of each; `counts` int64 [merges], how often its pair occurred.

    The first merge makes the id `first`, the next `first + 1`, and so on.
    """

    first: int
    pairs: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def train(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    byte_ids: Sequence[int],
    vocabulary_size: int,
    minimum_frequency: int = 2,
    ties: Ties = "ids",
    progress: Callable[[int], None] = lambda merges: None,
) -> LearnedMerges:
    """Merges until there are `vocabulary_size` ids, or no pair that occurs `minimum_frequency` times.

    Word i is `data[offsets[i]:offsets[i + 1]]` and occurs `counts[i]` times (1 or more). `byte_ids` are the ids of the 256 bytes; new ids
    follow the greatest of them. `progress` is told how many merges have been made since it was last called. Raises InputError where the
    words are too many.
    """
    least = max(minimum_frequency, 1)
    first = max(byte_ids) + 1
    fixed, letters = _arrays(data, offsets, counts, byte_ids, max(vocabulary_size, first))
    used, state = len(fixed.slots), np.zeros(4, np.int64)
    state[TOKEN] = first
    bound = MOST_COUNT
    with held_interrupts() as look:
        while state[TOKEN] < vocabulary_size and bound > least:
            sums = np.zeros(SUMS, np.int64)
            used = compact(fixed.slots, fixed.large, used, fixed.widths, sums)
            fixed.widths[:] = 1
            bound = max(least, min(bound, int(sums.max())) // FALL)
            look()
            growing = _table(fixed, used, sums, bound, state, letters, ties)
            while state[SIZE] and state[TOKEN] < vocabulary_size:
                look()
                before = state[TOKEN]
                growing = merge_pairs(fixed, growing, state, bound, min(vocabulary_size, before + CHUNK), ties == "bytes")
                progress(int(state[TOKEN] - before))
            letters = growing.letters
    made = fixed.merges[first : state[TOKEN]]
    return LearnedMerges(first, made[:, :2].copy(), made[:, 2].copy())


def _arrays(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], byte_ids: Sequence[int], ids: int
) -> tuple[Fixed, npt.NDArray[np.uint8]]:
    """The arrays of training with the words in them, and the bytes of the tokens that there are."""
    size = slots_needed(offsets)
    if size >= MOST_SLOTS:
        raise InputError(f"tokenizer: the sample has {len(counts):,} different words, too many to train on: lower tokenizer.sample.mb.")
    slots = np.empty((size, 2), np.int32)
    large = fill_slots(data, offsets, counts, np.array(byte_ids, np.int32), slots)
    starts = np.zeros(ids + 1, np.int64)
    starts[np.array(byte_ids) + 1] = 1
    np.cumsum(starts, out=starts)
    letters = np.argsort(np.array(byte_ids)).astype(np.uint8)
    scratch = np.zeros((ids, 8), np.int64), np.zeros(ids, np.int64)
    return Fixed(slots, large, np.ones(ids, np.int64), np.zeros((ids, 3), np.int64), starts, *scratch), letters


def _table(
    fixed: Fixed,
    used: int,
    sums: npt.NDArray[np.int64],
    bound: int,
    state: npt.NDArray[np.int64],
    letters: npt.NDArray[np.uint8],
    ties: Ties,
) -> GrowingArrays:
    """The pairs that occur at least `bound` times, where they are, and the heap over them."""
    index, pairs = np.full(1 << 12, -1, np.int32), np.empty((1 << 10, FIELDS), np.int64)
    index, pairs, known, positions = tabulate(fixed.slots, fixed.large, used, sums, bound, index, pairs)
    heap, size = make_heap(pairs, known, bound, ties == "bytes", fixed.starts, letters)
    state[KNOWN], state[WRITTEN], state[SIZE] = known, len(positions), size
    return GrowingArrays(index, pairs, positions, heap, letters, np.empty((1 << 10, 2), np.int64))


# ---- the tokenizer of what was learned -------------------------------------------------------------------


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
            f"lower tokenizer.vocab_size (512 is the least), or give more documents."
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
