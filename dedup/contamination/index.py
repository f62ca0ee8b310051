# mypy: disallow-untyped-defs=False
"""The index of the evaluation sets: which n-grams of `seed` words belong to few items, and where in which texts they stand.

What is common to a set proves nothing by itself: an n-gram that more than `common` items of one set have (of an instruction that every
item repeats), and one of numbers alone. All other n-grams are a text's own. A text that has none, or fewer than `min_ngram` words, is
found where it stands whole, and looked up by its rarest n-gram. A text whose words more than `common` items of one set have is
boilerplate. Equal texts are looked for once, as the first that has them.
"""

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.config import ContaminationConfig
from corpusmill.dedup.contamination.sets import NUMBER, ItemTexts, hashes_of, passage_words
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, insert, mix64, table_size

#: Kinds of texts.
LEFT_OUT, WHOLE, GRADED = 0, 1, 2
#: Bits of the filter for each n-gram: one in 16 n-grams that are not in the index gets past it.
FILTER_BITS = 16


@dataclass(frozen=True)
class Index:
    """All arrays that finding needs. n-grams are numbered by ascending hash; those of number g stand where
    `post_passage[starts[g]:starts[g + 1]]` and `post_place` say. The words of text p are `words[bounds[p]:bounds[p + 1]]`."""

    filter: npt.NDArray[np.uint64]  # a power of two of bits; the highest bits of a hash say which one is set
    table: npt.NDArray[np.uint64]  # open addressing (pipeline/text/hashing.py)
    gram_at: npt.NDArray[np.int32]  # the number of the n-gram in each slot of the table
    starts: npt.NDArray[np.int64]
    post_passage: npt.NDArray[np.int32]
    post_place: npt.NDArray[np.int32]  # words before the n-gram in its text
    words: npt.NDArray[np.uint64]
    own: npt.NDArray[np.uint8]  # of each of `words`: 1 where it stands in an n-gram of the text's own
    bounds: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int8]
    set_of: npt.NDArray[np.int32]
    number: npt.NDArray[np.int64]
    field_of: npt.NDArray[np.int32]
    sets: list[str]
    fields: list[str]

    def to_bytes(self) -> bytes:
        """An Arrow file of one row, each array a list in it: read without a copy, from a memory map too."""
        columns = {field.name: _one_row(getattr(self, field.name)) for field in fields(self)}
        sink = pa.BufferOutputStream()
        table = pa.table(columns)
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_buffer(cls, source: pa.NativeFile | pa.Buffer) -> "Index":
        table = pa.ipc.open_file(source).read_all()
        arrays = {field.name: table[field.name].chunk(0).values for field in fields(cls)}
        return cls(**{name: a.to_pylist() if pa.types.is_string(a.type) else a.to_numpy() for name, a in arrays.items()})


def _one_row(values: npt.NDArray | list[str]) -> pa.Array:
    array = pa.array(values, pa.string()) if isinstance(values, list) else pa.array(values)
    return pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array)


@kernel(error_model="numpy")
def _gram_hashes(words, bounds, chosen, seed, hashes, passages, places):
    """The n-grams of the texts that are `chosen`; returns how many there are."""
    count = 0
    for p in range(len(bounds) - 1):
        if chosen[p]:
            for place in range(bounds[p + 1] - bounds[p] - seed + 1):
                value = np.uint64(0)
                for k in range(seed):
                    value = value * BASE + words[bounds[p] + place + k]
                hashes[count], passages[count], places[count] = max(mix64(value), np.uint64(1)), p, place
                count += 1
    return count


@kernel(error_model="numpy")
def _rarest(passages, counts, kind, chosen):
    """Chooses the first of the rarest n-grams of each text that is to be found whole."""
    best = -1
    for g in range(len(passages)):
        if kind[passages[g]] == WHOLE:
            if best < 0 or passages[best] != passages[g]:
                best = g
                chosen[best] = True
            elif counts[g] < counts[best]:
                chosen[best] = False
                best = g
                chosen[best] = True


@kernel(error_model="numpy")
def _fill(hashes, shift, table, gram_at, filter_):
    mask = table.size - 1
    for g in range(len(hashes)):
        insert(table, mask, hashes[g])
        bit = hashes[g] >> shift
        filter_[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
        slot = np.int64(hashes[g]) & mask
        while table[slot] != hashes[g]:
            slot = (slot + 1) & mask
        gram_at[slot] = g


def build_index(passages: ItemTexts, config: ContaminationConfig) -> Index:
    """The index of the texts that can be looked for. O(words of the sets)."""
    seed = config.seed
    words, bounds = passage_words(passages.texts)
    lengths = np.diff(bounds)
    wanted = _first_of_few(words, bounds, passages, config.common) & (lengths >= config.min_words)
    total = int(np.maximum(lengths[wanted] - seed + 1, 0).sum())
    hashes, owner, places = np.empty(total, np.uint64), np.empty(total, np.int64), np.empty(total, np.int64)
    _gram_hashes(words, bounds, wanted, seed, hashes, owner, places)
    _, gram, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    numbers = hashes_of({number for text in passages.texts for number in NUMBER.findall(text)})
    words_before = np.concatenate([[0], np.cumsum(~np.isin(words, numbers))])  # that are no numbers
    at = bounds[owner] + places
    proves = ~_many(gram, passages.item[owner], passages.set_of[owner], config.common)[gram] & (words_before[at + seed] > words_before[at])

    kind = np.full(len(lengths), LEFT_OUT, np.int8)
    kind[wanted & ((lengths >= config.min_ngram) | (config.short == "whole"))] = WHOLE
    kind[owner[proves & (lengths[owner] >= config.min_ngram)]] = GRADED
    own = np.zeros(len(words), np.uint8)
    for k in range(seed):
        own[(at + k)[proves]] = 1

    chosen = proves & (kind[owner] == GRADED)
    _rarest(owner, counts[gram], kind, chosen)
    order = np.flatnonzero(chosen)
    order = order[np.argsort(hashes[order], kind="stable")]
    used, starts = np.unique(hashes[order], return_index=True)
    table = np.zeros(table_size(len(used)), np.uint64)
    gram_at = np.zeros(len(table), np.int32)
    bits = max(6, int(np.ceil(np.log2(max(len(used) * FILTER_BITS, 1)))))
    filter_ = np.zeros(1 << (bits - 6), np.uint64)
    _fill(used, np.uint64(64 - bits), table, gram_at, filter_)
    return Index(
        filter_, table, gram_at, np.append(starts, len(order)).astype(np.int64), owner[order].astype(np.int32),
        places[order].astype(np.int32), words, own, bounds, kind, passages.set_of, passages.number, passages.field_of,
        passages.sets, passages.fields,
    )  # fmt: skip


def _first_of_few(words: npt.NDArray, bounds: npt.NDArray, passages: ItemTexts, common: int) -> npt.NDArray[np.bool_]:
    """Which texts are the first of those with equal words, and not boilerplate, whose words more than `common` items of one set have."""
    number: dict[bytes, int] = {}
    text = np.array([number.setdefault(words[a:b].tobytes(), len(number)) for a, b in pairwise(bounds)], np.int64)
    first = np.zeros(len(text), bool)
    first[np.unique(text, return_index=True)[1]] = True
    return first & ~_many(text, passages.item, passages.set_of, common)[text]


def _many(value: npt.NDArray, item: npt.NDArray, set_: npt.NDArray, common: int) -> npt.NDArray[np.bool_]:
    """For each value 0, 1, ...: whether it occurs in more than `common` items of one set."""
    pairs = np.unique(np.stack([value, set_, item], axis=1).astype(np.int64), axis=0)
    groups, counts = np.unique(pairs[:, :2], axis=0, return_counts=True)
    result = np.zeros(int(value.max(initial=-1)) + 1, bool)
    result[groups[counts > common, 0]] = True
    return result
