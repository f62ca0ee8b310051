# mypy: disallow-untyped-defs=False
"""Whether a text is found in a document, from the n-grams that both have.

A text is found where, in a window a quarter longer than the text, n-grams cover enough of its words. The order of its parts does
not matter. What is found reaches from the first to the last n-gram of all such windows, and beyond as long as at least half of
the words are those of the text.

`texts` are the words, the bounds, the kinds, the needed words and the windows of all texts (`find.Finder`).
"""

import numpy as np

from corpusmill.pipeline.kernel import kernel

#: A hit is one integer: text, word in the block, word in the text.
PLACE_BITS, POSITION_BITS = 20, 20
#: Columns of a match.
DOCUMENT, PASSAGE, START, END, COVERED = range(5)


@kernel(inline="always")
def hit_of(passage, position, place):
    return (passage << (PLACE_BITS + POSITION_BITS)) | (position << PLACE_BITS) | place


@kernel(inline="always")
def passage_of(hit):
    return hit >> (PLACE_BITS + POSITION_BITS)


@kernel(inline="always")
def _position(hit):
    return (hit >> PLACE_BITS) & ((1 << POSITION_BITS) - 1)


@kernel(inline="always")
def _place(hit):
    return hit & ((1 << PLACE_BITS) - 1)


@kernel(error_model="numpy")
def stands(words, length, first, texts, passage):
    """Whether the whole text stands at word `first` of the document."""
    begin, end = texts[1][passage], texts[1][passage + 1]
    if first < 0 or first + end - begin > length:
        return False
    for k in range(end - begin):  # noqa: SIM110 - a kernel
        if words[first + k] != texts[0][begin + k]:
            return False
    return True


@kernel(error_model="numpy")
def add(matches, found, document, passage, start, end, covered):
    if found == len(matches):
        matches = np.concatenate((matches, np.empty((len(matches), 5), np.int64)))
    matches[found, DOCUMENT], matches[found, PASSAGE] = document, passage
    matches[found, START], matches[found, END], matches[found, COVERED] = start, end, covered
    return matches, found + 1


@kernel(error_model="numpy")
def judge(hits, document, block, words, length, texts, counts, seed, matches, found):
    """Goes through the hits text by text, and judges those texts that have enough of them."""
    hits.sort()
    first = 0
    while first < len(hits):
        passage = passage_of(hits[first])
        last = first + 1
        while last < len(hits) and passage_of(hits[last]) == passage:
            last += 1
        if (last - first) * seed >= texts[3][passage]:
            matches, found = _windows(hits[first:last], passage, document, block, words, length, texts, counts, seed, matches, found)
        first = last
    return matches, found


@kernel(error_model="numpy")
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
            covered += int(counts[k] == 0)
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
                    matches, found = add(matches, found, document, passage, first, last, best)
                begin, end, best = left, right, enough
    if begin >= 0:
        first, last = _reach(hits[begin], hits[end], block, words, length, texts, passage, seed)
        matches, found = add(matches, found, document, passage, first, last, best)
    for hit in range(left, len(hits)):
        _take(counts, _place(hits[hit]), seed)
    return matches, found


@kernel(error_model="numpy")
def _take(counts, place, seed):
    """Takes one hit out of the window; returns how many words nothing else covers."""
    lost = 0
    for k in range(place, place + seed):
        counts[k] -= 1
        lost += int(counts[k] == 0)
    return lost


@kernel(error_model="numpy")
def _reach(first, last, block, words, length, texts, passage, seed):
    """From which word of the document to which a match reaches: beyond its outermost hits while half of the words are the text's."""
    begin, size = texts[1][passage], texts[1][passage + 1] - texts[1][passage]
    start, place = block + _position(first), _place(first)
    equal, reached = 0, 0
    for k in range(1, min(start, place) + 1):
        same = words[start - k] == texts[0][begin + place - k]
        equal += int(same)
        if same and 2 * equal >= k:
            reached = k
    start -= reached
    end, place = block + _position(last) + seed, _place(last) + seed
    equal, reached = 0, 0
    for k in range(1, min(length - end, size - place) + 1):
        same = words[end + k - 1] == texts[0][begin + place + k - 1]
        equal += int(same)
        if same and 2 * equal >= k:
            reached = k
    return start, end + reached
