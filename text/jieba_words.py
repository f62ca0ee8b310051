# mypy: disallow-untyped-defs=False
"""The word rule `jieba`: Chinese words as the library jieba cuts them, by kernels, with the dictionary and the model of the library that
is installed.

Words are those of datatrove for Chinese (`jieba.cut(text)` without white space):

1. A block is a run of ideographs, ASCII letters, digits and `+#&._%-`. Each other character is a word.
2. A block is cut along the path of words of the dictionary whose frequencies have the highest product. A character that begins no word is a
   step of its own, with the frequency 1.
3. Successive single characters of that path are cut again, unless together they are a word of the dictionary: ideographs by a hidden Markov
   model (begin, middle and end of a word, and single; Viterbi's path), the others by a pattern for numbers and names.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import longest_text
from corpusmill.text.dictionary import find_prefix, longer, read_dictionary
from corpusmill.text.utf8 import SPACE, character_classes, decode
from corpusmill.text.words import FoundWords

FIRST, LAST = 0x4E00, 0x9FD5  # the ideographs
#: States of the model in the order of jieba's letters B, E, M, S, which decides between equal paths.
STATES = "BEMS"
BEGIN, END, MIDDLE, SINGLE = range(4)
#: jieba's logarithm of an impossible event.
IMPOSSIBLE = -3.14e100
#: The score of a beginning of words that is no word. Those of words are negative.
NO_WORD = 1.0
_DOT, _PERCENT = 0x2E, 0x25

#: Kinds of ASCII characters.
_OF_BLOCK, _ALNUM, _DIGIT = 1, 2, 4
_KINDS = np.zeros(128, np.uint8)
for _point in range(128):
    _KINDS[_point] = (
        _OF_BLOCK * (chr(_point).isalnum() or chr(_point) in "+#&._%-") | _ALNUM * chr(_point).isalnum() | _DIGIT * chr(_point).isdigit()
    )


class Jieba(NamedTuple):
    """The dictionary and the model for the kernels."""

    keys: npt.NDArray[np.uint64]  # the dictionary (`read_dictionary`)
    scores: npt.NDArray[np.float64]  # by slot: the logarithm of the word's relative frequency, or NO_WORD
    unknown: float  # the score of the frequency 1
    starts: npt.NDArray[np.float64]  # by state
    steps: npt.NDArray[np.float64]  # from state, to state
    emissions: npt.NDArray[np.float64]  # state, ideograph


def libraries(_: str) -> tuple[str, ...]:
    return ("jieba",)


@cache
def _jieba() -> Jieba:
    """Reads jieba's dictionary and model, once a process."""
    import jieba
    from jieba import finalseg

    with jieba.dt.get_dict_file() as file:
        keys, frequencies, total = read_dictionary(file.read(), " ")
    logarithm = math.log(total)
    known, slots = np.unique(frequencies, return_inverse=True)
    scores = np.array([math.log(frequency) - logarithm if frequency else NO_WORD for frequency in known.tolist()])[slots]
    emissions = np.full((4, LAST - FIRST + 1), IMPOSSIBLE)
    for state, letter in enumerate(STATES):
        for character, value in finalseg.emit_P[letter].items():
            if FIRST <= ord(character) <= LAST:
                emissions[state, ord(character) - FIRST] = value
    steps = [[finalseg.trans_P[before].get(after, IMPOSSIBLE) for after in STATES] for before in STATES]
    return Jieba(keys, scores, 0.0 - logarithm, np.array([finalseg.start_P[letter] for letter in STATES]), np.array(steps), emissions)


def find_words(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], _: str) -> FoundWords:
    """Returns the words of the rule `jieba` (`text.words.find_words`)."""
    marks = np.zeros(len(data), np.uint8)
    mark_texts(data, offsets, _jieba(), character_classes(), marks)
    return FoundWords(data, offsets, marks)


# ---- The kernels


@kernel(inline="always")
def _is(point, kinds):
    return point < 128 and _KINDS[point] & kinds != 0


@kernel(inline="always")
def _ideograph(point):
    return (point >= FIRST) & (point <= LAST)


@kernel
def mark_texts(data, offsets, jieba, classes, marks):
    """Writes a mark where a word begins in each text. `classes`: the `character_classes`."""
    longest = longest_text(offsets)
    points, begins, nexts = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    route, states = np.empty(longest + 1, np.float64), np.empty((longest + 1, 4), np.uint8)
    for text in range(offsets.size - 1):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            size = 0
            while at < end:
                point, width = decode(data, at)
                if not (_ideograph(point) or _is(point, _OF_BLOCK)):
                    break
                points[size], begins[size] = point, at
                size += 1
                at += width
            if size:
                mark_block(points, size, begins, jieba, route, nexts, states, marks)
            if at < end:
                marks[at] = classes[point] & SPACE == 0
                at += width


@kernel
def mark_block(points, size, begins, jieba, route, nexts, states, marks):
    """Marks the words of a block of `size` characters, which begin at the bytes `begins`."""
    keys, scores = jieba.keys, jieba.scores
    route[size] = 0.0
    for first in range(size - 1, -1, -1):
        key, best, after = np.uint64(0), jieba.unknown + route[first + 1], -1
        for last in range(first, size):
            key = longer(key, points[last])
            slot = find_prefix(keys, key)
            if slot < 0:
                break
            if scores[slot] != NO_WORD:
                score = scores[slot] + route[last + 1]
                if after < 0 or score >= best:
                    best, after = score, last + 1
        route[first], nexts[first] = best, after if after >= 0 else first + 1
    at, run = 0, 0
    while at < size:
        after = nexts[at]
        if after - at > 1:
            mark_singles(points, run, at, begins, jieba, states, marks)
            marks[begins[at]] = 1
            run = after
        at = after
    mark_singles(points, run, size, begins, jieba, states, marks)


@kernel
def mark_singles(points, first, end, begins, jieba, states, marks):
    """Marks the words of successive single characters `first` to `end - 1` of the best path."""
    key = np.uint64(0)
    for at in range(first, end):
        key = longer(key, points[at])
    slot = find_prefix(jieba.keys, key)
    if end - first < 2 or (slot >= 0 and jieba.scores[slot] != NO_WORD):
        for at in range(first, end):
            marks[begins[at]] = 1
        return
    at = first
    while at < end:
        begin = at
        marks[begins[begin]] = 1
        if _ideograph(points[at]):
            while at < end and _ideograph(points[at]):
                at += 1
            mark_by_model(points, begin, at, begins, jieba, states, marks)
        elif not _is(points[at], _ALNUM):
            while at < end and not _is(points[at], _ALNUM) and not _ideograph(points[at]):
                at += 1
        else:  # [a-zA-Z0-9]+(?:\.\d+)?%?
            while at < end and _is(points[at], _ALNUM):
                at += 1
            if at + 1 < end and points[at] == _DOT and _is(points[at + 1], _DIGIT):
                at += 1
                while at < end and _is(points[at], _DIGIT):
                    at += 1
            at += at < end and points[at] == _PERCENT


@kernel
def mark_by_model(points, first, end, begins, jieba, states, marks):
    """Marks the words of the ideographs `first` to `end - 1` along the likeliest path of states. `states`: scratch, (characters, 4)."""
    steps, emissions = jieba.steps, jieba.emissions
    now, before = np.empty(4), np.empty(4)
    for state in range(4):
        now[state] = jieba.starts[state] + emissions[state, points[first] - FIRST]
    for at in range(first + 1, end):
        before[:] = now
        for state in range(4):
            one, other = _sources(state)
            emission = emissions[state, points[at] - FIRST]
            low, high = before[one] + steps[one, state] + emission, before[other] + steps[other, state] + emission
            now[state], states[at, state] = (low, one) if low > high else (high, other)
    chosen = np.int64(END if now[END] > now[SINGLE] else SINGLE)
    for at in range(end - 1, first, -1):
        if chosen in (BEGIN, SINGLE):
            marks[begins[at]] = 1
        chosen = np.int64(states[at, chosen])


@kernel(inline="always")
def _sources(state):
    """Returns the two states that can come before a state, in the order of STATES."""
    if state in (BEGIN, SINGLE):
        return END, SINGLE
    return BEGIN, MIDDLE
