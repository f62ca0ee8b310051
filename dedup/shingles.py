# mypy: disallow-untyped-defs=False
"""Makes MinHash signatures and shingle sets of texts, by the options `dedup.minhash` of a recipe.

A text is normalised and split into units (words by one of the filters' rules, or characters); a shingle is the hash of an n-gram of units.
A megabyte of text is processed at a time, so memory does not grow with the batch, only with the longest document: up to about 40 bytes for
each of its bytes. Time is linear in the length of the text.
"""

from collections import namedtuple
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from corpusmill.dedup.config import MinHashConfig
from corpusmill.dedup.normalise import SIMPLIFICATIONS, normalised, repaired, simplified, tables
from corpusmill.dedup.words import chunks, shingle_hashes, word_codes, word_hashes
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import read_only
from corpusmill.text.hashing import BASE, ONE, mix64, power, xxh64
from corpusmill.text.utf8 import character_classes, decode
from corpusmill.text.words import VISIBLE, base_powers, find_words, new_words, walk_marked_words, walk_words, word_rule_classes

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

#: The hashes for shingles: ours combines the hashes of the units; the others are datatrove's, which hash the bytes of the n-gram.
OURS, XXH64, SHA1_64, SHA1_32 = range(4)
_SPACE = 0x20
#: A slot with more shingles than this is sorted as a whole; a smaller one by insertion.
_LARGE_SLOT = 24

#: A word rule for kernels: the table of `word_rule_classes`, the `base_powers`, and the marks of `FoundWords`.
WordTable = namedtuple("WordTable", "classes powers marks")

#: Bytes of text that are shingled at once; a longer document is a chunk by itself.
CHUNK_BYTES = 1 << 20

#: Points at which the error of a shape of bands is taken, on each side of the similarity (Gauss and Legendre).
POINTS = 200
#: Rules that find the same words in a text of letters and spaces alone.
PLAIN_RULES = ("words", "whitespace")

_HASHES = {("xxhash", 64): XXH64, ("sha1", 64): SHA1_64, ("sha1", 32): SHA1_32}


@cache
def _rule_tables(rule: str) -> tuple[Bytes, Hashes]:
    return word_rule_classes(rule, character_classes()), base_powers()


class Shingler:
    """Makes signatures and shingle sets of texts. The same texts and configuration give the same numbers on every machine."""

    def __init__(self, config: MinHashConfig) -> None:
        self.config = config
        self.how = _HASHES.get((config.hash, config.bits), OURS)
        self.least = max(config.ngram, config.min_words)
        # in the normal form `words` both rules find the same words, and one kernel finds them without writing that form
        # (they differ for a text without words, where the form has its symbols, so signatures and sets must both use it or neither)
        self.plain = (config.unit, config.normalisation, self.how) == ("words", "words", OURS) and config.word_rule in PLAIN_RULES

    def setup(self) -> None:
        """Loads the tables, once for each process. Takes about a second for the rule `spacy` and half a second for the others."""
        config = self.config
        self.bands, self.rows = band_shape(config)
        if self.how == OURS:
            self.multipliers, self.addends = permutations(config.seed, self.bands * self.rows, config.bits)
        else:
            self.multipliers, self.addends = datatrove_permutations(config.seed, self.bands * self.rows)
        if config.normalisation in SIMPLIFICATIONS:
            tables(config.normalisation)
        if self.plain:
            word_codes()
        elif config.unit == "words":
            self.classes, self.powers = _rule_tables(config.word_rule)

    def signatures(self, data: Bytes, offsets: Offsets) -> tuple[npt.NDArray[Any], Offsets]:
        """Returns `(signatures, shingles)` of n texts: n x (bands * rows) minima (uint32 or uint64 by `bits`), and int64 of length n.

        `shingles` is the number of shingles, repeats included. It is 0 for a text that is too short to be compared (shorter than one
        shingle, or than `min_words`); the signature of such a text is zeros and means nothing.
        """
        dtype = np.dtype(f"u{self.config.bits // 8}")
        largest = np.iinfo(dtype).max
        out = np.full((len(offsets) - 1, self.bands * self.rows), largest, dtype)
        shingles = np.zeros(len(out), np.int64)
        for first, last, hashes, bounds in self._chunks(data, offsets, self.how):
            shingles[first:last] = np.diff(bounds)
            if self.how != OURS:
                datatrove_minima(hashes, bounds, self.multipliers, self.addends, np.uint64(largest), out[first:last])
            else:
                upper = (hashes[: bounds[-1]] >> np.uint64(64 - self.config.bits)).astype(dtype)
                minima(upper, bounds, self.multipliers, self.addends, out[first:last])
        out[shingles == 0] = 0
        return out, shingles

    def sets(self, data: Bytes, offsets: Offsets) -> tuple[Hashes, Offsets]:
        """Returns `(hashes, bounds)`: the set of text i is `hashes[bounds[i]:bounds[i + 1]]`, ascending, empty where the text is too short.

        The n-grams are those of the signatures, but their hash is always our 64-bit one.
        """
        sets, sizes = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
        for _, _, hashes, bounds in self._chunks(data, offsets, OURS):
            most = int(np.diff(bounds).max())
            to_sets(hashes, bounds, np.empty(most, np.uint64), np.empty(most + 3, np.int64))
            sets.append(hashes[: bounds[-1]].copy())
            sizes.append(np.diff(bounds))
        return np.concatenate(sets), np.cumsum(np.concatenate(sizes))

    def _chunks(self, data: Bytes, offsets: Offsets, how: int) -> Iterator[tuple[int, int, Hashes, Offsets]]:
        """Yields `(first text, last text + 1, shingles, bounds of each text's shingles)` for each chunk."""
        for first, last in chunks(offsets, CHUNK_BYTES):
            chunk, places = data[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first]
            yield first, last, *self._shingles(chunk, places, how)

    def _shingles(self, data: Bytes, offsets: Offsets, how: int) -> tuple[Hashes, Offsets]:
        config = self.config
        bounds = np.zeros(len(offsets), np.int64)
        ngram, least = config.ngram, self.least
        if self.plain:
            out = np.empty(int(offsets[-1]) // 2 + len(offsets), np.uint64)
            plain_shingles(read_only(data), read_only(offsets), word_codes(), ngram, least, out, bounds)
            return out, bounds
        data, offsets = self._normal_form(data, offsets)
        text = read_only(data[: offsets[-1]]), read_only(offsets)
        longest = int(np.diff(offsets).max())
        out = np.empty(int(offsets[-1]) + 1, np.uint64)
        if config.unit == "characters":
            if how == OURS:
                character_shingles(*text, ngram, least, out, bounds)
            else:
                character_strings(*text, how, ngram, least, np.empty(longest + 1, np.int64), out, bounds)
            return out, bounds
        found = find_words(config.word_rule, *text)
        text, longest = (found.data, found.offsets), int(np.diff(found.offsets).max())
        out = np.empty(int(found.offsets[-1]) + 1, np.uint64)
        rule, words = WordTable(self.classes, self.powers, found.marks), new_words(longest + 1)
        if how == OURS:
            word_shingles(*text, rule, words, ngram, least, out, bounds)
        else:
            joined, begins = np.empty(2 * longest + 1, np.uint8), np.empty(longest + 2, np.int64)
            word_strings(*text, rule, words, how, ngram, least, joined, begins, out, bounds)
        return out, bounds

    def _normal_form(self, data: Bytes, offsets: Offsets) -> tuple[Bytes, Offsets]:
        """Returns the texts in the form in which they are compared, as valid UTF-8."""
        match self.config.normalisation:
            case "none":
                return repaired(data, offsets)
            case "whitespace" | "lowercase" | "words" as how:
                return normalised(data, offsets, how)
            case peer:
                return simplified(data, offsets, peer)


# ---- kernels: shingles as numbers, and sets of them ------------------------------------------------------
#
# The kernels that make shingles write those of all texts to `out`, one text after the other, and where each text's shingles end to `bounds`
# (one more than texts). A text with fewer than `least` units has none.


@kernel
def plain_shingles(data, offsets, codes, ngram, least, out, bounds):
    """Makes shingles of lower-cased runs of `\\w` (`words.word_hashes`)."""
    place = 0
    for d in range(len(offsets) - 1):
        count = word_hashes(data, offsets[d], offsets[d + 1], codes, out[place:])
        if count >= least:
            place += shingle_hashes(out[place:], count, ngram)
        bounds[d + 1] = place


@kernel
def _walk(data, start, end, rule, words):
    if rule.marks.size:
        return walk_marked_words(data, start, end, rule.marks, rule.classes, rule.powers, words)
    return walk_words(data, start, end, rule.classes, rule.powers, words)


@kernel(error_model="numpy")
def word_shingles(data, offsets, rule, words, ngram, least, out, bounds):
    """Makes shingles of the words of a rule. `words` is scratch memory for the longest text."""
    place = 0
    for d in range(len(offsets) - 1):
        count = _walk(data, offsets[d], offsets[d + 1], rule, words)
        if count >= least:
            for w in range(count):
                out[place + w] = mix64(words.hashes[w])
            place += shingle_hashes(out[place:], count, ngram)
        bounds[d + 1] = place


@kernel(error_model="numpy")
def word_strings(data, offsets, rule, words, how, ngram, least, joined, begins, out, bounds):
    """Makes word shingles: each is the hash of `ngram` successive words, joined by single spaces. `rule` says what a word is.

    `joined` (uint8, twice the bytes of the longest text, plus 1) and `begins` (int64, one for each word, plus 1) are scratch memory.
    """
    place = 0
    for d in range(len(offsets) - 1):
        count = _walk(data, offsets[d], offsets[d + 1], rule, words)
        if count >= least:
            _join(data, offsets[d], offsets[d + 1], rule.classes, words.ends, count, joined, begins)
            place += _hash_strings(joined, begins, count, ngram, 1, how, out[place:])
        bounds[d + 1] = place


@kernel
def _join(data, start, end, classes, ends, count, joined, begins):
    """Writes the words, each followed by a space, to `joined`, and where each begins to `begins`; `begins[count]` is the end."""
    word, characters, place, at = 0, 0, 0, start
    while at < end:
        point, width = decode(data, at)
        if classes[point] & VISIBLE:
            if characters == ends[word]:
                if word:
                    joined[place] = _SPACE
                    place += 1
                begins[word] = place
                word += 1
            for k in range(width):
                joined[place + k] = data[at + k]
            place += width
            characters += 1
        at += width
    begins[count] = place + 1


@kernel
def _hash_strings(data, begins, count, ngram, gap, how, out):
    """Hashes the n-grams of `count` units; returns their number. Units begin at `begins`, with `gap` bytes between two of them."""
    block, state = np.empty(16, np.uint64), np.empty(5, np.uint64)
    shingles = max(count - ngram + 1, 0)
    for w in range(shingles):
        start, end = begins[w], begins[w + ngram] - gap
        if how == XXH64:
            out[w] = xxh64(data, start, end)
        else:
            value = sha1(data, start, end, block, state)
            out[w] = value & np.uint64(0xFFFFFFFF) if how == SHA1_32 else value
    return shingles


@kernel(error_model="numpy")
def character_shingles(data, offsets, ngram, least, out, bounds):
    """Makes shingles of characters: a rolling polynomial hash of n code points, two multiplications for each character."""
    place, gone = 0, power(ngram)
    for d in range(len(offsets) - 1):
        at, behind, end, count = offsets[d], offsets[d], offsets[d + 1], 0
        begin, value = place, np.uint64(0)
        while at < end:
            point, width = decode(data, at)
            at += width
            count += 1
            value = value * BASE + (np.uint64(point) + ONE)
            if count > ngram:
                first, step = decode(data, behind)
                behind += step
                value -= (np.uint64(first) + ONE) * gone
            if count >= ngram:
                out[place] = mix64(value)
                place += 1
        if count < least:
            place = begin
        bounds[d + 1] = place


@kernel(error_model="numpy")
def character_strings(data, offsets, how, ngram, least, begins, out, bounds):
    """Makes shingles of characters, each the hash of its bytes. `begins` (int64, the bytes of the longest text, plus 1) is scratch."""
    place = 0
    for d in range(len(offsets) - 1):
        count = 0
        for at in range(offsets[d], offsets[d + 1]):
            begins[count] = at
            count += data[at] & 0xC0 != 0x80
        begins[count] = offsets[d + 1]
        if count >= least:
            place += _hash_strings(data, begins, count, ngram, 0, how, out[place:])
        bounds[d + 1] = place


@kernel(error_model="numpy")
def to_sets(hashes, bounds, spare, counts):
    """Sorts the hashes of each text and drops repeats, in place. The sets follow each other without gaps; `bounds` is updated.

    Hashes are spread evenly, so a pass by their upper bits puts a few into each slot, and these are sorted by insertion. A slot with many
    hashes, as a repetitive text has, is sorted as a whole. `spare` (uint64, as many as the largest text has shingles) and `counts` (int64,
    three more) are scratch memory.
    """
    place, first = 0, bounds[0]
    for d in range(len(bounds) - 1):
        last = bounds[d + 1]
        size = last - first
        bits = 0
        while 2 << bits < size:
            bits += 1
        _scatter(hashes[first:last], bits, spare, counts)
        begin = place
        for slot in range(1 << bits):
            low, high = counts[slot], counts[slot + 1]
            if high - low > _LARGE_SLOT:
                spare[low:high] = np.sort(spare[low:high])
            else:
                _insert_in_order(spare, low, high)
            for w in range(low, high):
                if place == begin or spare[w] != hashes[place - 1]:
                    hashes[place] = spare[w]
                    place += 1
        bounds[d + 1], first = place, last


@kernel(error_model="numpy")
def _scatter(hashes, bits, spare, counts):
    """Writes `hashes` to `spare` by their upper `bits`; slot s is then `spare[counts[s]:counts[s + 1]]`."""
    shift = np.uint64(63 - bits)
    counts[: (1 << bits) + 2] = 0
    for value in hashes:
        counts[np.int64(value >> ONE >> shift) + 2] += 1
    for slot in range(2, (1 << bits) + 2):
        counts[slot] += counts[slot - 1]
    for value in hashes:
        following = np.int64(value >> ONE >> shift) + 1
        spare[counts[following]] = value
        counts[following] += 1


@kernel(inline="always")
def _insert_in_order(values, low, high):
    for w in range(low + 1, high):
        value, at = values[w], w
        while at > low and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


# ---- kernels: the hashes that datatrove uses -------------------------------------------------------------


_LOW = np.uint64(0xFFFFFFFF)
_ZERO = np.uint64(0)


@kernel(inline="always")
def _rotate32(value, bits):
    return (value << np.uint64(bits) | value >> np.uint64(32 - bits)) & _LOW


@kernel
def _sha1_block(block, state):
    """Adds 64 bytes to the state of a SHA-1. `block` has them as 16 big-endian numbers (uint64; overwritten), `state` is uint64 of 5."""
    a, b, c, d, e = state[0], state[1], state[2], state[3], state[4]
    for step in range(80):
        place = step & 15
        if step >= 16:
            block[place] = _rotate32(block[(step + 13) & 15] ^ block[(step + 8) & 15] ^ block[(step + 2) & 15] ^ block[place], 1)
        if step < 20:
            mixed = ((b & c) | (~b & d & _LOW)) + np.uint64(0x5A827999)
        elif step < 40:
            mixed = (b ^ c ^ d) + np.uint64(0x6ED9EBA1)
        elif step < 60:
            mixed = ((b & c) | (b & d) | (c & d)) + np.uint64(0x8F1BBCDC)
        else:
            mixed = (b ^ c ^ d) + np.uint64(0xCA62C1D6)
        a, b, c, d, e = (_rotate32(a, 5) + mixed + e + block[place]) & _LOW, a, _rotate32(b, 30), c, d
    state[0], state[1], state[2] = (state[0] + a) & _LOW, (state[1] + b) & _LOW, (state[2] + c) & _LOW
    state[3], state[4] = (state[3] + d) & _LOW, (state[4] + e) & _LOW


@kernel
def sha1(data, start, end, block, state):
    """Returns the first eight bytes of the SHA-1 of `data[start:end]` as a little-endian number. `block` (16) and `state` (5): scratch."""
    state[0], state[1], state[2], state[3], state[4] = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0
    size = end - start
    for first in range(0, size + 9, 64):
        for word in range(16):
            value = _ZERO
            for place in range(first + 4 * word, first + 4 * word + 4):
                byte = np.uint64(data[start + place]) if place < size else np.uint64(0x80 if place == size else 0)
                value = value << np.uint64(8) | byte
            block[word] = value
        if first + 64 >= size + 9:
            block[14], block[15] = np.uint64(size) >> np.uint64(29), np.uint64(size) << np.uint64(3) & _LOW
        _sha1_block(block, state)
    value = _ZERO
    for place in range(8):
        value |= (state[place >> 2] >> np.uint64(24 - 8 * (place & 3)) & np.uint64(0xFF)) << np.uint64(8 * place)
    return value


# ---- MinHash signatures and LSH band keys (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3) --------
#
# A signature has a minimum for each of bands * rows permutations of the hashes: the least value that the permutation gives to any shingle
# of the document. The share of places in which two signatures are equal estimates the Jaccard similarity of their documents. Our
# permutations are `a * h + b` with an odd a, modulo 2^32 or 2^64. datatrove's are `(a * h + b mod 2^64) mod (2^61 - 1)`; its 32-bit
# signatures hold the lower half of that.


_MERSENNE_PRIME = np.uint64((1 << 61) - 1)


def permutations(seed: int, count: int, bits: int) -> tuple[npt.NDArray, npt.NDArray]:
    """Returns `(multipliers, addends)`, uint32 or uint64 of length `count`: the same on every platform and with every library version."""
    draws = [[xxhash.xxh3_64_intdigest(f"{part}:{i}", seed=seed) >> (64 - bits) for i in range(count)] for part in "ab"]
    dtype = np.uint32 if bits == 32 else np.uint64
    multipliers, addends = np.array(draws, dtype)
    return multipliers | dtype(1), addends


def datatrove_permutations(seed: int, count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Returns `(multipliers, addends)` as datatrove's `MinhashDedupSignature.parameters` draws them; numpy keeps RandomState stable."""
    draw = np.random.RandomState(seed)
    prime = int(_MERSENNE_PRIME)
    return draw.randint(1, prime, dtype=np.uint64, size=count), draw.randint(0, prime, dtype=np.uint64, size=count)


@kernel(error_model="numpy")
def minima(hashes, bounds, multipliers, addends, out):
    """Writes the signatures to `out`. Except for `bounds`, all arrays are uint32 or all are uint64. Taking four shingles at a time saves
    loads and stores."""
    number = out.dtype.type  # numba computes with 64 bits, so 32-bit results must be cut
    for d in range(len(bounds) - 1):
        w, last, least = bounds[d], bounds[d + 1], out[d]
        while w + 4 <= last:
            h, i, j, k = hashes[w], hashes[w + 1], hashes[w + 2], hashes[w + 3]
            for p in range(len(multipliers)):
                a, b = multipliers[p], addends[p]
                first, second = min(number(a * h + b), number(a * i + b)), min(number(a * j + b), number(a * k + b))
                least[p] = min(least[p], min(first, second))
            w += 4
        while w < last:
            for p in range(len(multipliers)):
                least[p] = min(least[p], number(multipliers[p] * hashes[w] + addends[p]))
            w += 1


@kernel(error_model="numpy")
def datatrove_minima(hashes, bounds, multipliers, addends, mask, out):
    """Writes the signatures (uint32 or uint64) under datatrove's permutations to `out`. `mask`: the bits that are compared."""
    for d in range(len(bounds) - 1):
        least = np.full(len(multipliers), mask)
        for w in range(bounds[d], bounds[d + 1]):
            h = hashes[w]
            for p in range(len(multipliers)):
                value = multipliers[p] * h + addends[p]
                value = (value & _MERSENNE_PRIME) + (value >> np.uint64(61))
                value = min(value, value - _MERSENNE_PRIME)  # a negative difference wraps to a huge number
                least[p] = min(least[p], value & mask)
        for p in range(len(multipliers)):
            out[d, p] = least[p]


@kernel(error_model="numpy")
def _band_keys(signature, bands, rows, out):
    for d in range(len(signature)):
        for band in range(bands):
            key = np.uint64(band + 1)
            for row in range(rows):
                key = mix64(key * np.uint64(0x9E3779B97F4A7C15) + np.uint64(signature[d, band * rows + row]))
            out[band, d] = key


def band_keys(signature: npt.NDArray, bands: int, rows: int) -> npt.NDArray[np.uint64]:
    """Returns a 64-bit key for each band of each signature: bands x n. `signature`: n x (bands * rows)."""
    out = np.empty((bands, len(signature)), np.uint64)
    _band_keys(signature, bands, rows, out)
    return out


@kernel(error_model="numpy")
def equal_places(a, b):
    """Returns the number of places in which two signatures are equal."""
    count = 0
    for p in range(len(a)):
        count += a[p] == b[p]
    return count


def optimal_bands(target: float, count: int) -> tuple[int, int]:
    """Returns `(bands, rows)` with at most `count` minima that err least: of pairs evenly spread over all similarities, the sum of the
    pairs below `target` that share a band and of those above it that share none is smallest. The optimum of datasketch's `MinHashLSH`.

    Raises ConfigError if that is a single band, which would find few of the pairs of this similarity."""
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    below, above = target * (points + 1) / 2, 1 - (1 - target) * (points + 1) / 2
    shapes = ((bands, rows) for bands in range(1, count + 1) for rows in range(1, count // bands + 1))

    def error(shape: tuple[int, int]) -> float:
        bands, rows = shape
        wrong, missed = 1 - (1 - below**rows) ** bands, (1 - above**rows) ** bands
        return float((weights * (target * wrong + (1 - target) * missed)).sum())

    best = min(shapes, key=error)
    if best[0] < 2:
        raise ConfigError(f"dedup.minhash: {count} permutations are too few for a target of {target}; give more.")
    return best


def band_shape(config: MinHashConfig) -> tuple[int, int]:
    """Returns `(bands, rows)`: those of the recipe, or the best ones for its `target`; (0, 0) where near copies are not looked for."""
    if not config.enabled:
        return 0, 0
    return (config.bands, config.rows) if config.target is None else optimal_bands(config.target, config.permutations)
