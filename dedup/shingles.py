"""From texts to MinHash signatures and shingle sets, as a recipe's `minhash` says.

A text is normalised, parted into units (words by one of the filters' rules, or characters), and its n-grams are hashed. Work goes on
by a few megabytes of text at a time: memory grows with the longest document, up to about 40 bytes for each of its own, never with the
batch. Time is linear in the text.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.config import MinHashConfig
from corpusmill.dedup.minhash import band_shape, datatrove_minima, datatrove_permutations, minima32, minima64, permutations
from corpusmill.dedup.normalise import normalised, repaired
from corpusmill.dedup.shingle_kernels import (
    OURS,
    SHA1_32,
    SHA1_64,
    XXH32,
    XXH64,
    Rule,
    character_shingles,
    character_strings,
    plain_shingles,
    to_sets,
    word_shingles,
    word_strings,
)
from corpusmill.dedup.simplify import simplified
from corpusmill.dedup.simplify_tables import SIMPLIFICATIONS, tables
from corpusmill.dedup.words import chunks, read_only, word_codes
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.text.buffers import MARKED
from corpusmill.pipeline.text.utf8 import character_classes
from corpusmill.pipeline.text.words import base_powers, new_words, word_rule_classes

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

#: Bytes of text that are shingled at once, a longer document alone.
CHUNK_BYTES = 1 << 20

#: Rules whose words are all alike in a text that has but letters and spaces.
PLAIN_RULES = ("words", "whitespace")

_HASHES = {("xxhash", 64): XXH64, ("xxhash", 32): XXH32, ("sha1", 64): SHA1_64, ("sha1", 32): SHA1_32}


@cache
def _rule_tables(rule: str) -> tuple[Bytes, Hashes]:
    return word_rule_classes(rule, character_classes()), base_powers()


class Shingler:
    """Makes signatures and shingle sets of texts. Pure: the same texts and configuration give the same numbers anywhere."""

    def __init__(self, config: MinHashConfig) -> None:
        self.config = config
        self.how = _HASHES.get((config.hash, config.bits), OURS)
        self.least = max(config.ngram, config.min_words)
        # the normal form `words` has words by both rules alike, which one kernel finds without writing the form
        # (of a text without words the form has the symbols, which matters to nobody but must not differ between hashes and sets)
        self.plain = (config.unit, config.normalisation, self.how) == ("words", "words", OURS) and config.word_rule in PLAIN_RULES

    def setup(self) -> None:
        """Loads tables, about a second for the rule `spacy` and half a second for others; once a process."""
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
            self.classes, self.powers = _rule_tables("words" if config.word_rule == "spacy" else config.word_rule)

    def signatures(self, data: Bytes, offsets: Offsets) -> tuple[npt.NDArray[Any], Offsets]:
        """`(signatures, shingles)` of n texts: n x bands * rows minima (uint32 or uint64 by `bits`), and int64 of length n.

        `shingles` counts with repeats. A text that is too short to be compared (shorter than one shingle, or than `min_words`) has
        none and a signature of zeros, which means nothing.
        """
        bits = self.config.bits
        out = np.zeros((len(offsets) - 1, self.bands * self.rows), np.uint32 if bits == 32 else np.uint64)
        shingles = np.zeros(len(out), np.int64)
        for first, last, hashes, bounds in self._chunks(data, offsets, self.how):
            shingles[first:last] = np.diff(bounds)
            if self.how != OURS:
                mask = np.uint64((1 << bits) - 1)
                datatrove_minima(hashes, bounds, self.multipliers, self.addends, mask, out[first:last])
            else:
                (minima32 if bits == 32 else minima64)(hashes, bounds, self.multipliers, self.addends, out[first:last])
        return out, shingles

    def sets(self, data: Bytes, offsets: Offsets) -> tuple[Hashes, Offsets]:
        """`(hashes, bounds)`: the set of text i is `hashes[bounds[i]:bounds[i + 1]]`, ascending, empty where it is too short.

        The shingles are those of the signatures, but always under our 64-bit hash.
        """
        sets, sizes = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
        for _, _, hashes, bounds in self._chunks(data, offsets, OURS):
            most = int(np.diff(bounds).max())
            to_sets(hashes, bounds, np.empty(most, np.uint64), np.empty(most + 3, np.int64))
            sets.append(hashes[: bounds[-1]].copy())
            sizes.append(np.diff(bounds))
        return np.concatenate(sets), np.cumsum(np.concatenate(sizes))

    def _chunks(self, data: Bytes, offsets: Offsets, how: int) -> Iterator[tuple[int, int, Hashes, Offsets]]:
        """`(first text, last text + 1, shingles, their bounds)`; the arrays are good until the next is asked for."""
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
        rule, words = self._rule(*text), new_words(longest + 1)
        if how == OURS:
            word_shingles(*text, rule, words, ngram, least, out, bounds)
        else:
            joined, begins = np.empty(2 * longest + 1, np.uint8), np.empty(longest + 2, np.int64)
            word_strings(*text, rule, words, how, ngram, least, joined, begins, out, bounds)
        return out, bounds

    def _rule(self, data: Bytes, offsets: Offsets) -> Rule:
        if self.config.word_rule != "spacy":
            return Rule(self.classes, self.powers, np.zeros(0, np.uint8))
        return Rule(self.classes, self.powers, load_object(MARKED["spacy"])(data, offsets[:-1], offsets[1:]))

    def _normal_form(self, data: Bytes, offsets: Offsets) -> tuple[Bytes, Offsets]:
        """The texts as they are compared: valid UTF-8."""
        match self.config.normalisation:
            case "none":
                return repaired(data, offsets)
            case "whitespace" | "lowercase" | "words" as how:
                return normalised(data, offsets, how)
            case peer:
                return simplified(data, offsets, peer)
