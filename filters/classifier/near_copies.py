# mypy: disallow-untyped-defs=False
"""Clusters of near copies among the examples of a training: every pair of the wanted similarity is found, so that no copy of a training
example is in the test part.

MinHash-LSH, as the stage dedup has it, misses a pair now and then. Here sets of shingles are joined by prefix filtering (Chaudhuri, Ganti
and Kaushik 2006; Bayardo, Ma and Srikant 2007), with longer prefixes that must have more in common (Wang, Li and Feng 2012): of two sets
with at least `least` shingles in common, the first l of these in the order of rarity are among the size - least + l rarest of either.
"""

import math
import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.kernel import kernel

#: Shingles of short texts, in characters: those in which one word is changed stay similar. Long texts share so many of these by chance that
#: nearly all would have to be compared, so they are compared by pairs of neighbouring words, of which as many change with a word.
CHARACTERS, WORDS = 5, 2
#: From so many characters on, a text is long.
LONG = 400
#: A prefix is longer by this part of the set's size, and so many shingles must be in common with another prefix.
LONGER = 16
#: Bits of a shingle's hash by which shingles are counted and looked up, at most.
MOST_BITS = 24
COUNT_BITS = 20  # of a key: how common a shingle is; the rest is of its hash

Places = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
_WORD = re.compile(r"\w+")


def near_clusters(text: pa.Array | pa.ChunkedArray, threshold: float = 0.7) -> Places:
    """The number of each text's cluster (n): the lowest place in it. Texts are in one cluster where a chain of pairs joins them, each with
    a Jaccard similarity of at least `threshold` of their sets of 5-character shingles, lower-cased and without what stands between words.

    Texts of fewer characters are alone. Of texts with 400 characters and more it is the sets of pairs of neighbouring words. Takes about 20
    bytes a character of memory; time grows with the number of texts that share rare shingles, to the square at worst.
    """
    texts = text.to_pylist()
    length = np.array([len(each) for each in texts], np.int64)
    parent, codes = np.arange(len(texts)), dict[str, int]()
    # Similar texts have similar lengths: a pair across the border is among the short ones.
    for unit, rows in ((CHARACTERS, np.flatnonzero(length < LONG / threshold)), (WORDS, np.flatnonzero(length >= LONG))):
        if len(rows):
            sets = [shingles(texts[row], unit, codes) for row in rows.tolist()]
            bounds = np.concatenate([[0], np.cumsum([len(each) for each in sets])])
            hashes, order = np.concatenate(sets), np.argsort(np.diff(bounds), kind="stable")
            bits = min(MOST_BITS, max(8, math.ceil(math.log2(len(hashes) + 1))))
            counts = np.bincount((hashes >> np.uint64(64 - bits)).astype(np.int64), minlength=1 << bits)
            join_similar(hashes, bounds, order, counts, bits, threshold, rows, parent)
    return np.array([root(parent, place) for place in range(len(parent))], np.int64)


def shingles(text: str, unit: int, codes: dict[str, int]) -> Hashes:
    """The set of a text's shingles as 64-bit hashes, ascending: of 5 characters (CHARACTERS), or of pairs of words (WORDS); `codes` numbers
    the words."""
    words = _WORD.findall(text.lower())
    if unit == CHARACTERS:
        units = np.frombuffer(" ".join(words).encode("utf-32-le"), np.uint32).astype(np.uint64)
    else:
        units = np.array([codes.setdefault(word, len(codes)) for word in words], np.uint64)
    count = max(len(units) - unit + 1, 0)
    found = np.zeros(count, np.uint64)
    for place in range(unit):
        found = (found ^ (found >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + units[place : place + count]
    for factor, shift in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27)):  # the finaliser of SplitMix64
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return np.unique(found ^ (found >> np.uint64(31)))


@kernel
def join_similar(hashes, bounds, order, counts, bits, threshold, rows, parent):
    """Joins all similar texts in `parent`, where text i is at `rows[i]`. `hashes[bounds[i]:bounds[i + 1]]` is its set, ascending; `order`
    lists the texts by the size of their sets; `counts`: how often the upper `bits` bits of hashes occur."""
    total = 0
    for i in range(len(bounds) - 1):
        total += prefix_size(bounds[i + 1] - bounds[i], threshold)
    head = np.full(len(counts), -1)
    following, owner, entries = np.empty(total, np.int64), np.empty(total, np.int64), 0
    shared, met = np.zeros(len(bounds) - 1, np.int64), np.empty(len(bounds) - 1, np.int64)
    for place in range(len(order)):
        text = order[place]
        own = hashes[bounds[text] : bounds[text + 1]]
        prefix = rarest(own, counts, bits, prefix_size(len(own), threshold))
        found = 0
        for number in range(len(prefix)):
            entry = head[prefix[number]]
            while entry >= 0:
                other = owner[entry]
                if bounds[other + 1] - bounds[other] < threshold * len(own) - 1e-9:
                    break  # what was entered before is smaller still
                if shared[other] == 0:
                    met[found] = other
                    found += 1
                shared[other] += 1
                entry = following[entry]
        for number in range(found):
            other = met[number]
            enough = shared[other] >= wanted(bounds[other + 1] - bounds[other])
            shared[other] = 0
            if enough:
                a, b = root(parent, rows[text]), root(parent, rows[other])
                if a != b and similar(own, hashes[bounds[other] : bounds[other + 1]], threshold):
                    parent[max(a, b)] = min(a, b)
        for number in range(len(prefix)):
            owner[entries], following[entries] = text, head[prefix[number]]
            head[prefix[number]] = entries
            entries += 1


@kernel
def wanted(size):
    """How many shingles of the prefix of a set must be in the prefix of a larger one."""
    return 1 + size // LONGER  # never more than they have in common, down to a similarity of 1 / 16


@kernel
def prefix_size(size, threshold):
    return min(size, size - int(np.ceil(threshold * size - 1e-9)) + wanted(size)) if size else 0


@kernel(error_model="numpy")
def similar(a, b, threshold):
    """Whether two ascending arrays without repeats have at least that Jaccard similarity; given up as soon as they can't."""
    least = int(np.ceil(threshold / (1 + threshold) * (len(a) + len(b)) - 1e-9))
    i = j = common = 0
    while i < len(a) and j < len(b):
        x, y = a[i], b[j]
        common += int(x == y)
        i += int(x <= y)
        j += int(y <= x)
        if common + min(len(a) - i, len(b) - j) < least:
            return False
    return common >= least


@kernel
def rarest(own, counts, bits, size):
    """The upper bits of the `size` rarest shingles of a set, without those that no other text can have."""
    keys = np.empty(len(own), np.uint64)
    kept = np.uint64(64 - COUNT_BITS)
    for place in range(len(own)):
        count = min(counts[np.int64(own[place] >> np.uint64(64 - bits))], (1 << COUNT_BITS) - 1)
        keys[place] = np.uint64(count) << kept | own[place] >> np.uint64(COUNT_BITS)
    keys.sort()
    found, at = np.empty(size, np.int64), 0
    for place in range(size):
        if keys[place] >> kept > 1:
            found[at] = np.int64(keys[place] << np.uint64(COUNT_BITS) >> np.uint64(64 - bits))
            at += 1
    return found[:at]


@kernel
def root(parent, place):
    """The lowest place of a cluster. Halves the way there for the next time."""
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = parent[place]
    return place
