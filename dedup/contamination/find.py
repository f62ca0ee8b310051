# mypy: disallow-untyped-defs=False
"""Finding the texts of evaluation sets in documents.

Every n-gram of `seed` words of a document is looked up, first in a filter of bits. Those that are in the index are hits, each for all
texts that have the n-gram; texts with enough hits are judged by windows (`windows.py`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.contamination.config import ContaminationConfig
from corpusmill.dedup.contamination.index import GRADED, WHOLE, Index, least_words
from corpusmill.dedup.contamination.windows import COVERED, PASSAGE, add, hit_of, judge, passage_of, stands
from corpusmill.dedup.contamination.words import word_codes, word_hashes
from corpusmill.dedup.words import read_only
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.hashing import BASE, mix64, power
from corpusmill.pipeline.text.table import find

#: Words of a document that are taken at a time, at least: bounds what is kept of a huge document.
BLOCK_WORDS = 1 << 16
#: Texts are counted in so many counters, several in one, to see which have too few hits to be found.
TALLY = 1 << 14

Matches = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Finder:
    """An index with what the options make of it: `need` words of each text (0: never found), in a `window` of words."""

    index: Index
    seed: int
    need: npt.NDArray[np.int64]
    window: npt.NDArray[np.int64]
    block: int

    @classmethod
    def make(cls, index: Index, config: ContaminationConfig, block: int = BLOCK_WORDS) -> "Finder":
        lengths = np.diff(index.bounds)
        share = np.ceil(index.evidence * config.share - 1e-9).astype(np.int64)
        least = np.maximum(share, least_words(lengths, config))
        need = np.where(index.kind == GRADED, least, np.where(index.kind == WHOLE, lengths, 0))
        window = lengths + np.maximum(-(-lengths // 4), config.seed)
        return cls(index, config.seed, need, window, max(block, 2 * int(window[index.kind == GRADED].max(initial=0))))

    def find(self, texts: pa.Array) -> Matches:
        """k x 5: document, text of the index, first word, word behind the last, and how many words of the text were found there.

        Ascending, each once.
        """
        data, offsets = text_buffers(texts)
        longest = int(np.diff(offsets).max(initial=0)) // 2 + 1
        index = self.index
        arrays: tuple[npt.NDArray, ...] = (index.filter, index.table, index.gram_at, index.starts, index.post_passage, index.post_place)
        texts_: tuple[npt.NDArray, ...] = (index.words, index.bounds, index.kind, self.need, self.window)
        scratch = (
            np.empty(longest, np.uint64), np.empty(self.block + 1, np.int64), np.empty(self.block + 1, np.uint64),
            np.zeros(int(np.diff(index.bounds).max(initial=0)) + 1, np.int64), np.zeros(TALLY, np.int64),
        )  # fmt: skip
        found = _find(read_only(data), read_only(offsets), word_codes(), tuple(map(read_only, arrays)), tuple(map(read_only, texts_)),
                      scratch, self.seed, self.block, int(self.window[index.kind == GRADED].max(initial=0)))  # fmt: skip
        return np.unique(found, axis=0) if len(found) else found

    def share(self, matches: Matches) -> npt.NDArray[np.float64]:
        """What share of its text, as far as it proves something, each match has."""
        share: npt.NDArray[np.float64] = matches[:, COVERED] / self.index.evidence[matches[:, PASSAGE]]
        return share


@kernel(error_model="numpy")
def _find(data, offsets, codes, arrays, texts, scratch, seed, block, widest):
    words, positions, keys, counts, tally = scratch
    need = texts[3]
    filter_, table, gram_at, starts, post_passage, post_place = arrays
    matches, found = np.empty((16, 5), np.int64), 0
    hits = np.empty(1024, np.int64)
    for d in range(len(offsets) - 1):
        length = word_hashes(data, offsets[d], offsets[d + 1], codes, words)
        start = 0
        while start + seed <= length:
            end = min(start + block, length)
            candidates = _filtered(words, start, end, seed, filter_, positions, keys)
            count = 0
            for c in range(candidates):
                slot = find(table, table.size - 1, keys[c])
                if slot < 0:
                    continue
                gram = gram_at[slot]
                for post in range(starts[gram], starts[gram + 1]):
                    passage, place = np.int64(post_passage[post]), np.int64(post_place[post])
                    if texts[2][passage] == WHOLE:
                        if stands(words, length, positions[c] - place, texts, passage):
                            first = positions[c] - place
                            matches, found = add(matches, found, d, passage, first, first + need[passage], need[passage])
                        continue
                    if count == len(hits):
                        hits = np.concatenate((hits, np.empty(len(hits), np.int64)))
                    hits[count] = hit_of(passage, positions[c] - start, place)
                    count += 1
                    tally[passage & (TALLY - 1)] += 1
            count = _enough(hits, count, tally, need, seed)
            if count:
                matches, found = judge(hits[:count], d, start, words, length, texts, counts, seed, matches, found)
            if end == length:
                break
            start += block - widest
    return matches[:found]


@kernel(error_model="numpy")
def _enough(hits, count, tally, need, seed):
    """Brings the hits of texts that may have enough of them to the front; returns how many. The tally is zeros again at the end."""
    kept = 0
    for h in range(count):
        hit = hits[h]
        passage = passage_of(hit)
        hits[h] = hits[kept]
        hits[kept] = hit
        kept += int(tally[passage & (TALLY - 1)] * seed >= need[passage])
    for h in range(count):
        tally[passage_of(hits[h]) & (TALLY - 1)] = 0
    return kept


@kernel(error_model="numpy")
def _filtered(words, start, end, seed, filter_, positions, keys):
    """The n-grams of `words[start:end]` that the filter lets pass: where they begin, and their hashes. Returns how many.

    Without a branch: each is written, and only those that pass move the place on.
    """
    shift = np.uint64(64)
    size = filter_.size * 64
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    leaving = power(seed)
    value = np.uint64(0)
    for w in range(start, start + seed - 1):
        value = value * BASE + words[w]
    count = 0
    gone = np.uint64(0)
    for w in range(start, end - seed + 1):
        value = value * BASE + words[w + seed - 1] - gone * leaving
        gone = words[w]
        key = max(mix64(value), np.uint64(1))
        bit = key >> shift
        positions[count], keys[count] = w, key
        count += int((filter_[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1) != 0)
    return count
