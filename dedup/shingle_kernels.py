# mypy: disallow-untyped-defs=False
"""The shingles of a batch of texts as 64-bit numbers, and sets of them.

All kernels fill `out` (uint64) with the shingles of one text behind the other, in the order of the text and with repeats, and
`bounds` (int64, one item more than texts): those of text i are `out[bounds[i]:bounds[i + 1]]`, none where the text has fewer
than `least` units. Texts have to be valid UTF-8, but for `plain_shingles`.
"""

from collections import namedtuple

import numpy as np

from corpusmill.dedup.string_hashes import sha1, xxh32
from corpusmill.dedup.words import shingle_hashes, word_hashes
from corpusmill.pipeline.kernel import kernel
from corpusmill.pipeline.text.hashing import BASE, ONE, mix64, power, xxh64
from corpusmill.pipeline.text.utf8 import decode
from corpusmill.pipeline.text.words import VISIBLE, walk_marked_words, walk_words

#: How a shingle becomes a number: by our hash of hashes, or by a hash of its characters.
OURS, XXH64, XXH32, SHA1_64, SHA1_32 = range(5)
_SPACE = 0x20
#: Shingles of one slot beyond which they are sorted rather than inserted one by one.
_LARGE_SLOT = 24

#: A word rule: the table of `word_rule_classes`, `base_powers`, and marks as long as the texts (`spacy_tokens`), none for other rules.
Rule = namedtuple("Rule", "classes powers marks")


@kernel
def plain_shingles(data, offsets, codes, ngram, least, out, bounds):
    """Of runs of `\\w`, lower-cased: `words.word_hashes`."""
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
    """Of the words of a rule; `words` is scratch for the longest text."""
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
    """As `word_shingles`, each the hash of its words with one space between them.

    `joined` (uint8, twice the bytes of the longest text and one more) and `begins` (int64, as many) are scratch.
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
    """Writes the words, a space behind each, to `joined`, and where each begins to `begins`; `begins[count]` is the end."""
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
    """Hashes the n-grams of the `count` units that begin at `begins`, between which `gap` bytes belong to none."""
    block, state = np.empty(16, np.uint64), np.empty(5, np.uint64)
    shingles = max(count - ngram + 1, 0)
    for w in range(shingles):
        start, end = begins[w], begins[w + ngram] - gap
        if how == XXH64:
            out[w] = xxh64(data, start, end)
        elif how == XXH32:
            out[w] = xxh32(data, start, end)
        else:
            value = sha1(data, start, end, block, state)
            out[w] = value & np.uint64(0xFFFFFFFF) if how == SHA1_32 else value
    return shingles


@kernel(error_model="numpy")
def character_shingles(data, offsets, ngram, least, out, bounds):
    """Of characters: the polynomial of n code points, which moves on by one character in two multiplications."""
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
    """As `character_shingles`, each the hash of its bytes. `begins` (int64, one more than the bytes of the longest text) is scratch."""
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
    """Makes the numbers of each text a set, ascending, moved up to close the gaps; `bounds` becomes theirs.

    Hashes are spread evenly, so a pass by their upper bits leaves a few in each slot, which are inserted in order. Only where many
    are alike, as in a text that repeats itself, a slot is sorted as a whole. `spare` (uint64) and `counts` (int64, three more) are
    scratch of as many items as the largest text has shingles.
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
