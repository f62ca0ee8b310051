# mypy: disallow-untyped-defs=False
"""Reads a fastText classifier's file as arrays for the kernels of `filters.fasttext_scores`.

The rows of an unquantised model stay in the file, mapped into memory. Other arrays are made in memory: rows from their codes, tables of
words and hash buckets, the matrix of scores. Their sizes are computed first, and a model that needs too much memory is refused.

Source: fastText 0.9.2: `FastText::loadModel`, `Dictionary::load`, `QuantMatrix::load`, `ProductQuantizer::load`,
`HierarchicalSoftmaxLoss::buildTree`.
"""

from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from struct import Struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.memory import need_memory
from corpusmill.text.hashing import BASE, find, insert, mix64, table_size
from corpusmill.text.utf8 import HIGH_BITS, decode, eight_bytes

MAGIC, VERSION = 793712314, 12
SUPERVISED = 3  # a value of fastText's model_name
HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4  # values of fastText's loss_name
LABEL = -2  # instead of a row's number: the dictionary's entry is a label
EOS = b"</s>"
ENTRY = Struct("<qb")  # an entry of the dictionary, after the word: its count, and 0 for a word or 1 for a label
CENTROIDS: Final = 256  # for each part of a quantised row
LONGEST_NGRAM: Final = 1000  # words or characters; far more than models use
MOST_BUCKETS: Final = 1 << 28  # of a pruned model: its table takes 4 bytes a bucket, however small the file is


@dataclass(frozen=True)
class FastTextModel:
    """A fastText classifier.

    `rows` float32 (rows, dim): of words, then of hash buckets; `output` float32 (dim, labels or inner nodes of the tree).
    `words` and `word_rows`: a hash table of the dictionary (`text.hashing.find`), and the row of each slot's word, or LABEL.
    `buckets` int32: if the model is pruned, the row of each hash bucket, counted after the rows of words, or -1; else empty.
    `children` int32 (nodes, 2): the tree of hierarchical softmax. A node's place in `output` is its number minus the number of labels.
    """

    labels: tuple[str, ...]
    rows: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]
    words: npt.NDArray[np.uint64]
    word_rows: npt.NDArray[np.int32]
    buckets: npt.NDArray[np.int32]
    children: npt.NDArray[np.int32]
    loss: int
    bucket_count: int
    word_count: int
    shortest: int  # the fewest characters of a word's n-grams, and (`longest`) the most: fastText's minn and maxn
    longest: int
    word_ngrams: int
    eos: int  # row of the token `</s>` for the line's end, or -1


class _File:
    """A file mapped into memory and read from start to end."""

    def __init__(self, path: str):
        with open(path, "rb") as file:
            self.bytes = mmap(file.fileno(), 0, access=ACCESS_READ)  # ValueError where it is empty
        self.at = 0

    def array(self, kind: Any, count: int) -> npt.NDArray[Any]:
        """Returns the next `count` numbers, without a copy."""
        start, end = self.at, self.at + count * np.dtype(kind).itemsize
        if count < 0 or end > len(self.bytes):
            raise ValueError("the file ends too early")
        self.at = end
        return np.frombuffer(self.bytes, kind, count, start)

    def number(self, kind: Any) -> int:
        return int(self.array(kind, 1)[0])


def read_model(path: str) -> FastTextModel:
    """Reads a `.bin` or `.ftz` file. The rows of a `.bin` stay in the file, mapped into memory and shared by processes.

    Raises ValueError if the file has another format, is damaged, holds word vectors instead of a classifier, or needs more memory than
    there is.
    """
    file = _File(path)
    if len(file.bytes) < 8 or file.number(np.int32) != MAGIC:
        raise ValueError("it has another format")
    version = file.number(np.int32)
    if version > VERSION:
        raise ValueError(f"it has version {version} of the format, and {VERSION} is the last one known")
    dim, _, _, _, _, word_ngrams, loss, model, bucket_count, shortest, longest, _ = map(int, file.array(np.int32, 12))
    file.array(np.float64, 1)
    if model != SUPERVISED:
        raise ValueError("it has word vectors, but no labels")
    if loss not in (HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL):
        raise ValueError(f"its loss {loss} is unknown")
    if bucket_count < 0 or not (0 <= word_ngrams <= LONGEST_NGRAM and shortest >= 0 and 0 <= longest <= LONGEST_NGRAM):
        raise ValueError("its settings are damaged")
    if version == 11:  # classifiers of version 11 do not use character n-grams
        longest = 0
    names, counts, kinds, word_count, buckets = _dictionary(file, bucket_count)
    if buckets is None:  # all buckets are pruned
        buckets, bucket_count = np.zeros(0, np.int32), 0
    quantised = bool(file.number(np.uint8))
    rows = _quantised(file) if quantised else _dense(file)
    output = _quantised(file) if file.number(np.uint8) and quantised else _dense(file)
    labels = names[word_count:]
    hashed = longest > 0 or word_ngrams > 1
    last_row = word_count + (max(buckets.max(), 0) if buckets.size else bucket_count - 1 if hashed else -1)
    if rows.shape[1] != dim or output.shape != (len(labels), dim) or not labels or last_row >= len(rows) or (kinds[word_count:] != 1).any():
        raise ValueError("its parts do not fit together")
    words, word_rows = _word_table(names, kinds)
    need_memory(output.nbytes, "its labels take")
    return FastTextModel(
        labels=tuple(label.decode("utf-8", "replace") for label in labels),
        rows=rows,
        output=np.ascontiguousarray(output.T),
        words=words,
        word_rows=word_rows,
        buckets=buckets,
        children=_tree(counts[word_count:]) if loss == HIERARCHICAL else np.zeros((0, 2), np.int32),
        loss=loss,
        bucket_count=bucket_count if hashed else 0,
        word_count=word_count,
        shortest=shortest,
        longest=longest,
        word_ngrams=word_ngrams,
        eos=names.index(EOS) if EOS in names[:word_count] else -1,
    )


def _dictionary(
    file: _File, bucket_count: int
) -> tuple[list[bytes], npt.NDArray[np.int64], npt.NDArray[np.int8], int, npt.NDArray[np.int32] | None]:
    """Reads `(entries, their counts, their kinds, number of words, buckets)`; buckets is None if all are pruned."""
    size, word_count, label_count = map(int, file.array(np.int32, 3))
    file.number(np.int64)  # the number of training tokens
    pruned = file.number(np.int64)
    if min(size, word_count, label_count) < 0 or size != word_count + label_count or size > len(file.bytes):
        raise ValueError("its dictionary is damaged")
    names, counts, kinds = [], np.empty(size, np.int64), np.empty(size, np.int8)
    for entry in range(size):
        stop = file.bytes.find(b"\0", file.at)
        if not 0 <= stop < len(file.bytes) - ENTRY.size:
            raise ValueError("its dictionary is damaged")
        names.append(file.bytes[file.at : stop])
        counts[entry], kinds[entry] = ENTRY.unpack_from(file.bytes, stop + 1)
        file.at = stop + 1 + ENTRY.size
    if pruned < 0:
        return names, counts, kinds, word_count, np.zeros(0, np.int32)
    if not pruned:
        return names, counts, kinds, word_count, None
    pairs = file.array(np.int32, 2 * pruned).reshape(-1, 2)
    if bucket_count > MOST_BUCKETS:
        raise ValueError(f"it has {bucket_count:,} hash buckets, and {MOST_BUCKETS:,} are the most of a pruned model")
    need_memory(bucket_count * 4, "its hash buckets take")
    if pairs.min() < 0 or pairs[:, 0].max() >= bucket_count:
        raise ValueError("its dictionary is damaged")
    buckets = np.full(bucket_count, -1, np.int32)
    buckets[pairs[:, 0]] = pairs[:, 1]
    return names, counts, kinds, word_count, buckets


def _word_table(names: list[bytes], kinds: npt.NDArray[np.int8]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int32]]:
    need_memory(2 * table_size(len(names)) * 12, "its dictionary takes")
    words = np.zeros(2 * table_size(len(names)), np.uint64)
    word_rows = np.full(words.size, -1, np.int32)
    data = np.frombuffer(b"".join(names) + bytes(8), np.uint8)
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    fill_words(data, ends, np.where(kinds == 0, np.arange(len(names)), LABEL).astype(np.int32), words, word_rows)
    return words, word_rows


def _dense(file: _File) -> npt.NDArray[np.float32]:
    rows, dim = map(int, file.array(np.int64, 2))
    if rows < 0 or dim < 0:
        raise ValueError("its rows are damaged")
    return file.array(np.float32, rows * dim).reshape(rows, dim)


def _quantised(file: _File) -> npt.NDArray[np.float32]:
    """Reads a quantised matrix as plain rows: parts of a code book are joined and, if there are norms, multiplied by the row's norm."""
    with_norms = bool(file.number(np.uint8))
    rows, dim = map(int, file.array(np.int64, 2))
    codes = file.array(np.uint8, file.number(np.int32))
    matrix = _decode(file, codes, rows, dim)
    if with_norms:
        norms = file.array(np.uint8, rows)
        matrix *= _decode(file, norms, rows, 1)
    return matrix


def _decode(file: _File, codes: npt.NDArray[np.uint8], rows: int, dim: int) -> npt.NDArray[np.float32]:
    found, parts, width, last_width = map(int, file.array(np.int32, 4))
    centroids = file.array(np.float32, dim * CENTROIDS)
    if found != dim or codes.size != rows * parts or (parts - 1) * width + last_width != dim:
        raise ValueError("its quantised rows are damaged")
    need_memory(rows * dim * 4, f"its {rows:,} quantised rows of {dim} numbers take")
    matrix = np.empty((rows, dim), np.float32)
    for part in range(parts):
        part_width = width if part < parts - 1 else last_width
        book = centroids[part * CENTROIDS * width :][: CENTROIDS * part_width].reshape(CENTROIDS, part_width)
        matrix[:, part * width : part * width + part_width] = book[codes.reshape(rows, parts)[:, part]]
    return matrix


#: fastText's weight of a node of the tree that does not exist yet.
NOT_YET = 10**15


def _tree(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Returns the children of each node of the Huffman tree, -1 for leaves.

    `counts` must fall. Ties are broken as in fastText, because the codes of labels depend on them. Raises ValueError for counts that no
    training has: a node that does not exist yet would be the lightest.
    """
    labels = len(counts)
    if np.abs(counts.astype(np.float64)).sum() >= NOT_YET:
        raise ValueError("its counts of labels are damaged")
    weights = [*map(int, counts), *[NOT_YET] * (labels - 1)]
    children = np.full((2 * labels - 1, 2), -1, np.int32)
    leaf, node = labels - 1, labels
    for parent in range(labels, 2 * labels - 1):
        for side in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                children[parent, side], leaf = leaf, leaf - 1
            else:
                children[parent, side], node = node, node + 1
        weights[parent] = sum(weights[child] for child in children[parent])
    return children


# ---- Tokens as fastText reads them from a line (`Dictionary::readWord`), and the hash table of the dictionary

ONES = np.uint64(0x0101010101010101)
SPACE = 0x20
LABEL_PREFIX = tuple(b"__label__")
EOS_BYTES = tuple(b"</s>")


@kernel(inline="always")
def is_space(byte):
    return byte == SPACE or 9 <= byte <= 13 or byte == 0


@kernel
def token_end(data, at, end):
    """Returns the end of the token that begins at `at`. Examines eight bytes at a time."""
    while at + 8 <= data.size and at < end:
        word = eight_bytes(data, at)
        low = (word - np.uint64(0x21) * ONES) & ~word & HIGH_BITS  # its lowest bit: the first byte below 0x21
        if low:
            at += int((((low & (~low + np.uint64(1))) >> np.uint64(7)) * np.uint64(0x0001020304050607)) >> np.uint64(56))
            if at >= end or is_space(data[at]):
                break
            at += 1
        else:
            at += 8
    while at < end and not is_space(data[at]):
        at += 1
    return min(at, end)


@kernel
def starts_with(data, start, end, wanted):
    same = end - start >= len(wanted)
    for place in range(len(wanted)):
        same = same and data[start + place] == wanted[place]
    return same


@kernel
def hash_token(data, start, end):
    """Returns a 64-bit hash of the bytes, never 0."""
    value = np.uint64(end - start)
    while start + 8 <= end:
        value = mix64(value ^ eight_bytes(data, start)) * BASE
        start += 8
    if start < end:
        rest = np.uint64(0)
        if start + 8 <= data.size:
            rest = eight_bytes(data, start) & ((np.uint64(1) << np.uint64(8 * (end - start))) - np.uint64(1))
        else:
            for place in range(start, end):
                rest |= np.uint64(data[place]) << np.uint64(8 * (place - start))
        value = mix64(value ^ rest) * BASE
    value = mix64(value)
    return value if value else np.uint64(1)


@kernel
def fill_words(data, ends, entry_rows, words, word_rows):
    """Fills the hash table of a dictionary. Word i ends before `data[ends[i]]`; at least eight bytes follow the last word."""
    start = np.int64(0)
    for word in range(ends.size):
        key = hash_token(data, start, ends[word])
        insert(words, words.size - 1, key)
        word_rows[find(words, words.size - 1, key)] = entry_rows[word]
        start = ends[word]


@kernel
def split_tokens(data, offsets, starts, ends, first):
    """Finds each text's tokens as fastText reads them, up to `</s>`.

    Token t is `data[starts[t]:ends[t]]`; text i has the tokens from `first[i]` up to `first[i + 1]`. `starts` and `ends` need an item for
    every two bytes of the texts, and one for each text.
    """
    count = 0
    for text in range(offsets.size - 1):
        at, end = offsets[text], offsets[text + 1]
        first[text] = count
        while True:
            while at < end and is_space(data[at]):
                at += 1
            if at >= end:
                break
            stop = token_end(data, at, end)
            if stop - at == len(EOS_BYTES) and starts_with(data, at, stop, EOS_BYTES):
                break
            starts[count], ends[count] = at, stop
            count += 1
            at = stop
    first[offsets.size - 1] = count


@kernel
def texts_with_letters(data, offsets, counts, wanted):
    """bool (texts,): whether a text has at least `wanted` letters by `letter_counts`. Stops a text's count once it does."""
    found = np.empty(offsets.size - 1, np.bool_)
    for text in range(offsets.size - 1):
        at, end, missing = offsets[text], offsets[text + 1], wanted
        while missing > 0 and at < end:
            point, width = decode(data, at)
            missing -= counts[point]
            at += width
        found[text] = missing <= 0
    return found
