# mypy: disallow-untyped-defs=False
"""Finding the texts of evaluation sets in documents.

Every n-gram of `seed` words of a document is looked up, first in a filter of bits. The n-grams that are in the index are
ordered by text; where, in a window a quarter longer than the text, they cover enough of its words, the text is found. The order
of its parts does not matter. What is found reaches from the first to the last n-gram of all such windows, and beyond as long as
at least half of the words are those of the text.
"""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.contamination.config import ContaminationConfig
from corpusmill.dedup.contamination.index import GRADED, WHOLE, Index, least_words
from corpusmill.dedup.contamination.words import word_codes, word_hashes
from corpusmill.dedup.words import read_only
from corpusmill.pipeline.text.buffers import text_buffers
from corpusmill.pipeline.text.hashing import BASE, mix64, power
from corpusmill.pipeline.text.table import find

#: Words of a document that are taken at a time, at least: bounds what is kept of a huge document.
BLOCK_WORDS = 1 << 16
#: A hit is one integer: text, word in the block, word in the text.
PLACE_BITS, POSITION_BITS = 20, 20
#: Texts are counted in so many counters, several in one, to see which have too few hits to be found.
TALLY = 1 << 14
#: Columns of a match.
DOCUMENT, PASSAGE, START, END, COVERED = range(5)

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
        arrays = (index.filter, index.table, index.gram_at, index.starts, index.post_passage, index.post_place)
        texts_ = (index.words, index.bounds, index.kind, self.need, self.window)
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
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
                        if _stands(words, length, positions[c] - place, texts, passage):
                            first = positions[c] - place
                            matches, found = _add(matches, found, d, passage, first, first + need[passage], need[passage])
                        continue
                    if count == len(hits):
                        hits = np.concatenate((hits, np.empty(len(hits), np.int64)))
                    hits[count] = (passage << (PLACE_BITS + POSITION_BITS)) | ((positions[c] - start) << PLACE_BITS) | place
                    count += 1
                    tally[passage & (TALLY - 1)] += 1
            count = _enough(hits, count, tally, need, seed)
            if count:
                matches, found = _judge(hits[:count], d, start, words, length, texts, counts, seed, matches, found)
            if end == length:
                break
            start += block - widest
    return matches[:found]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _enough(hits, count, tally, need, seed):
    """Brings the hits of texts that may have enough of them to the front; returns how many. The tally is zeros again at the end."""
    kept = 0
    for h in range(count):
        hit = hits[h]
        passage = hit >> (PLACE_BITS + POSITION_BITS)
        hits[h] = hits[kept]
        hits[kept] = hit
        kept += np.int64(tally[passage & (TALLY - 1)] * seed >= need[passage])
    for h in range(count):
        tally[(hits[h] >> (PLACE_BITS + POSITION_BITS)) & (TALLY - 1)] = 0
    return kept


@numba.njit(cache=True, nogil=True, error_model="numpy")
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
        count += np.int64((filter_[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1))
    return count


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _stands(words, length, first, texts, passage):
    """Whether the whole text stands at word `first` of the document."""
    begin, end = texts[1][passage], texts[1][passage + 1]
    if first < 0 or first + end - begin > length:
        return False
    for k in range(end - begin):
        if words[first + k] != texts[0][begin + k]:
            return False
    return True


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _add(matches, found, document, passage, start, end, covered):
    if found == len(matches):
        matches = np.concatenate((matches, np.empty((len(matches), 5), np.int64)))
    matches[found, DOCUMENT], matches[found, PASSAGE] = document, passage
    matches[found, START], matches[found, END], matches[found, COVERED] = start, end, covered
    return matches, found + 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _judge(hits, document, block, words, length, texts, counts, seed, matches, found):
    """Goes through the hits text by text, and judges those texts that have enough of them."""
    hits.sort()
    first = 0
    while first < len(hits):
        passage = hits[first] >> (PLACE_BITS + POSITION_BITS)
        last = first + 1
        while last < len(hits) and hits[last] >> (PLACE_BITS + POSITION_BITS) == passage:
            last += 1
        if (last - first) * seed >= texts[3][passage]:
            matches, found = _windows(hits[first:last], passage, document, block, words, length, texts, counts, seed, matches, found)
        first = last
    return matches, found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _position(hit):
    return (hit >> PLACE_BITS) & ((1 << POSITION_BITS) - 1)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _place(hit):
    return hit & ((1 << PLACE_BITS) - 1)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _windows(hits, passage, document, block, words, length, texts, counts, seed, matches, found):
    """All windows of one text, from the largest that ends in each hit; overlapping ones that suffice are one match.

    What counts is the smaller of the words of the text and of the document that hits cover: "1, 2, 3, 4, 5" does not stand for all
    places of a text that have it. `counts` (zeros, and zeros again at the end): by how many hits of the window each word of the text
    is covered.
    """
    need, window = texts[3][passage], texts[4][passage]
    left, covered, there = 0, 0, 0
    begin, end, best = -1, -1, 0  # the match that is open: its first and last hit
    for right in range(len(hits)):
        place = _place(hits[right])
        for k in range(place, place + seed):
            covered += np.int64(counts[k] == 0)
            counts[k] += 1
        there += seed if right == left else min(seed, _position(hits[right]) - _position(hits[right - 1]))
        while _position(hits[right]) + seed - _position(hits[left]) > window:
            covered -= _take(counts, _place(hits[left]), seed)
            there -= min(seed, _position(hits[left + 1]) - _position(hits[left]))
            left += 1
        enough = min(covered, there)
        if enough >= need:
            if begin >= 0 and _position(hits[left]) <= _position(hits[end]) + seed:
                end, best = right, max(best, enough)
            else:
                if begin >= 0:
                    first, last = _reach(hits[begin], hits[end], block, words, length, texts, passage, seed)
                    matches, found = _add(matches, found, document, passage, first, last, best)
                begin, end, best = left, right, enough
    if begin >= 0:
        first, last = _reach(hits[begin], hits[end], block, words, length, texts, passage, seed)
        matches, found = _add(matches, found, document, passage, first, last, best)
    for hit in range(left, len(hits)):
        _take(counts, _place(hits[hit]), seed)
    return matches, found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _take(counts, place, seed):
    """Takes one hit out of the window; returns how many words nothing else covers."""
    lost = 0
    for k in range(place, place + seed):
        counts[k] -= 1
        lost += np.int64(counts[k] == 0)
    return lost


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _reach(first, last, block, words, length, texts, passage, seed):
    """From which word of the document to which a match reaches: beyond its outermost hits while half of the words are the text's."""
    begin, size = texts[1][passage], texts[1][passage + 1] - texts[1][passage]
    start, place = block + _position(first), _place(first)
    equal, reached = 0, 0
    for k in range(1, min(start, place) + 1):
        same = words[start - k] == texts[0][begin + place - k]
        equal += np.int64(same)
        if same and 2 * equal >= k:
            reached = k
    start -= reached
    end, place = block + _position(last) + seed, _place(last) + seed
    equal, reached = 0, 0
    for k in range(1, min(length - end, size - place) + 1):
        same = words[end + k - 1] == texts[0][begin + place + k - 1]
        equal += np.int64(same)
        if same and 2 * equal >= k:
            reached = k
    return start, end + reached
