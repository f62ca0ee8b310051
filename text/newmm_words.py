# mypy: disallow-untyped-defs=False
"""The word rule `newmm`: Thai words as pythainlp's newmm-safe cuts them, by kernels, with the word list of the installed library.

Words are those of datatrove for Thai (`word_tokenize(text, engine="newmm-safe", keep_whitespace=False)`):

1. A text of 140 characters or more is cut into parts of 100 to 140, after a blank or before the longest word in reach.
2. A part is cut where the fewest words of the list lead from one end to the other, and only between character clusters (what a reader
   takes for one letter). More than 50 words that begin in an unsettled stretch are not followed.
3. Where no word of the list begins, a word reaches to the next one. Other scripts have runs of Latin letters, of digits, and of the rest.
4. Numbers with `.`, `,` or `:` between digits become one word again; white space at the ends of words is left out.
"""

import re
from collections import namedtuple
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.kernel import kernel
from corpusmill.text.buffers import longest_text, read_only
from corpusmill.text.dictionary import find_prefix, longer, read_dictionary
from corpusmill.text.utf8 import CODE_POINTS, SPACE, character_classes, decode
from corpusmill.text.words import FoundWords, code_points

#: pythainlp's sizes: a part, where its end is looked for, and the most words that are followed.
PART, CUT_FROM, MOST_WORDS = 140, 100, 50
FIRST_THAI, LAST_THAI = 0x0E00, 0x0E7F
FIRST_CONSONANT, LAST_CONSONANT = 0x0E01, 0x0E2E
#: Kinds of characters.
_THAI, _LATIN, _DIGIT, _BLANK, _OPENS = 1, 2, 4, 8, 16
_NEWLINE, _RETURN, _SPACE, _DOT, _COMMA, _COLON = 0x0A, 0x0D, 0x20, 0x2E, 0x2C, 0x3A

#: The clusters of newmm (pythainlp's `tcc_p`, Apache-2.0, after Theeramunkong et al. 2000), the first that fits. `c`: a consonant; `t`: a
#: tone mark or nothing; `k`: one or two silent consonants with their mark, or nothing; `!`: a consonant or leading vowel follows, or
#: the end.
CLUSTERS = """
    เc็ck เcctาะk เccีtยะk เccีtย!k เcc็ck เcิc์ck เcิtck เcีtยะ?k เcืtอะ?k เc[ิีุู]tย!k เctา?ะ?k cัtวะk c[ัื]tc[ุิะ]?k c[ิุู]์ c[ะ-ู]tk
    cรรc์ c็ ct[ะาำ]?k ck แc็c แcc์ แctะ แcc็c แccc์ โctะ [เ-ไ]ct ก็ อึ หึ
"""
_SETS = {"c": "ก-ฮ", "t": "่-๋", "!": "เ-ไก-ฮ"}


class Newmm(NamedTuple):
    """The word list and the clusters for the kernels."""

    keys: npt.NDArray[np.uint64]  # the word list (`read_dictionary`)
    frequencies: npt.NDArray[np.int64]  # by slot: 1 for a word
    kinds: npt.NDArray[np.uint8]  # by code point
    steps: npt.NDArray[np.int16]  # the automaton of clusters: from a state, by the Thai character; 0 is the end, 1 the start
    fits: npt.NDArray[np.int16]  # by state: the first cluster that ends here, and the first of those with `!`


#: Scratch for a part of PART characters: whether a word can end, positions to go on from; the words from a position are
#: `targets[first[at]:first[at] + number[at]]`; a queue, and where the shortest way to a position comes from (-1: not reached).
Part = namedtuple("Part", "valid waiting first number targets queue source")


def libraries(_: str) -> tuple[str, ...]:
    return ("pythainlp",)


@cache
def _newmm() -> Newmm:
    """Reads pythainlp's word list, once a process."""
    from pythainlp.corpus import thai_words

    keys, frequencies, _ = read_dictionary("".join(f"{word.strip()}\t1\n" for word in sorted(thai_words())).encode(), "\t")
    kinds = np.zeros(CODE_POINTS, np.uint8)
    for kind, characters in (
        (_THAI, r"\u0e00-\u0e7f"), (_LATIN, r"a-zA-Z\-"), (_DIGIT, r"\d"), (_BLANK, r" \t"), (_OPENS, _SETS["!"]),
    ):  # fmt: skip
        kinds[code_points(f"[{characters}]")] |= kind
    return Newmm(keys, frequencies, kinds, *_automaton())


def _sequences(cluster: str) -> Iterator[tuple[str, ...]]:
    """Yields the sequences of characters, as sets, that a cluster stands for, in the order in which an expression tries them."""
    silent = [("c", *second, *vowel, "์") for second in (("c",), ()) for vowel in (("ิุู",), ())]
    choices = list[Sequence[tuple[str, ...]]]()
    for item, optional in re.findall(r"(\[.*?\]|.)(\??)", cluster):
        inner = item.strip("[]")
        choices.append([*silent, ()] if item == "k" else [(inner,), ()] if optional or item == "t" else [(inner,)])
    for chosen in product(*choices):
        yield tuple(item for items in chosen for item in items)


def _automaton() -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Returns `(steps, fits)` of `Newmm`. A state is a set of positions in sequences."""
    sequences = [each for cluster in CLUSTERS.split() for each in _sequences(cluster)]
    looks = [each[-1] == "!" for each in sequences]  # elsewhere a consonant stands after it
    sequences = [tuple(item for item in each if item != "!") for each in sequences]
    thai = [chr(point) for point in range(FIRST_THAI, LAST_THAI + 1)]
    members = {item: re.compile(f"[{_SETS.get(item, item)}]").fullmatch for each in sequences for item in each}
    kinds = {character: tuple(item for item, fits in members.items() if fits(character)) for character in thai}
    states, rows, fits = {frozenset[tuple[int, int]](): 0, frozenset((at, 0) for at in range(len(sequences))): 1}, [], []
    for state in (todo := list(states)):
        ended = [at for at, place in state if place == len(sequences[at])]
        fits.append([min((at for at in ended if looks[at] == look), default=len(sequences)) for look in (False, True)])
        row = dict[tuple[str, ...], int]()
        for kind in set(kinds.values()):
            after = frozenset((at, place + 1) for at, place in state if place < len(sequences[at]) and sequences[at][place] in kind)
            row[kind] = states.setdefault(after, len(states))
            if row[kind] == len(todo):
                todo.append(after)
        rows.append([row[kinds[character]] for character in thai])
    return np.array(rows, np.int16), np.array(fits, np.int16)


def find_words(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], _: str) -> FoundWords:
    """Returns the words of the rule `newmm` (`text.words.find_words`)."""
    words, begins, marks = np.empty(len(data), np.uint8), np.zeros(len(offsets), np.int64), np.zeros(len(data), np.uint8)
    find_in_texts(data, offsets, _newmm(), character_classes(), words, begins, marks)
    return FoundWords(read_only(words[: begins[-1]]), read_only(begins), marks[: begins[-1]])


# ---- The kernels


@kernel
def find_in_texts(data, offsets, newmm, classes, words, begins, marks):
    """Writes the words of all texts to `words`, where those of a text end to `begins`, and marks where a word begins."""
    longest = longest_text(offsets)
    points, places, cuts = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    part = Part(
        np.zeros(PART + 1, np.uint8), np.zeros(PART + 1, np.uint8), np.zeros(PART + 1, np.int64), np.zeros(PART + 1, np.int64),
        np.zeros(4 * PART, np.int64), np.zeros(PART + 1, np.int64), np.full(PART + 1, -1, np.int64),
    )  # fmt: skip
    written = 0
    for text in range(offsets.size - 1):
        at, size = offsets[text], 0
        while at < offsets[text + 1]:
            points[size], width = decode(data, at)
            places[size] = at
            size += 1
            at += width
        places[size] = at
        cuts[0] = 0
        count = rejoin_numbers(points, size, newmm.kinds, cuts, cut_text(points, size, newmm, part, cuts))
        for word in range(count):
            first, end = cuts[word], cuts[word + 1]
            while first < end and classes[points[first]] & SPACE:
                first += 1
            while first < end and classes[points[end - 1]] & SPACE:
                end -= 1
            if first < end:
                marks[written] = 1
                for byte in range(places[first], places[end]):
                    words[written] = data[byte]
                    written += 1
        begins[text + 1] = written


@kernel
def cut_text(points, size, newmm, part, cuts):
    """Cuts a text into words: word w is `points[cuts[w]:cuts[w + 1]]`. Returns their number."""
    count, first = 0, 0
    while size - first >= PART:
        last = first + PART - 1
        while last >= first + CUT_FROM and points[last] != _SPACE:
            last -= 1
        if last >= first + CUT_FROM:
            end = last + 1
        else:  # the cuts of the sample are overwritten
            found = cut_part(points, first + CUT_FROM, first + PART, newmm, part, cuts, count)
            cuts[count] = first + CUT_FROM
            end, length = first + CUT_FROM, 0
            for word in range(count, found):
                if cuts[word + 1] - cuts[word] >= length:
                    end, length = cuts[word], cuts[word + 1] - cuts[word]
            cuts[count] = first
        count = cut_part(points, first, end, newmm, part, cuts, count)
        first = end
    return cut_part(points, first, size, newmm, part, cuts, count)


@kernel
def cut_part(points, first, end, newmm, part, cuts, count):
    """Writes the ends of the words of `points[first:end]` to `cuts` after the first `count` words; returns the number of words."""
    points, size = points[first:end], end - first
    valid, waiting, number = part.valid, part.waiting, part.number
    find_clusters(points, newmm, valid)
    waiting[: size + 1], number[: size + 1] = 0, 0
    settled, at, left, used = 0, 0, 0, 0
    while at < size:
        waiting[at] = 0
        part.first[at] = used
        key, last = np.uint64(0), at
        while last < size:
            key = longer(key, points[last])
            slot = find_prefix(newmm.keys, key)
            if slot < 0:
                break
            last += 1
            if newmm.frequencies[slot] and valid[last]:
                part.targets[used] = last
                used += 1
                left += waiting[last] == 0
                waiting[last] = 1
                if used > MOST_WORDS:
                    break
        number[at] = used - part.first[at]
        begin = at
        if left == 0:
            at = skip_unknown(points, at, newmm, valid)
            count += 1
            cuts[count] = first + at
            waiting[at], left = 1, 1
        else:
            at += 1
            while waiting[at] == 0:
                at += 1
            if left > 1:
                left -= 1
                continue
            count = shortest_way(settled, at, part, cuts, count, first)
        number[settled : begin + 1] = 0
        settled, used, left = at, 0, 0
    return count


@kernel
def shortest_way(start, goal, part, cuts, count, first):
    """Writes the ends of the fewest words from `start` to `goal`; returns the new number of words."""
    queue, source = part.queue, part.source
    source[start : goal + 1] = -1
    queue[0], source[start] = start, start
    taken, known = 0, 1
    while source[goal] < 0:
        at = queue[taken]
        taken += 1
        for edge in range(part.first[at], part.first[at] + part.number[at]):
            to = part.targets[edge]
            if source[to] < 0:
                source[to] = at
                queue[known] = to
                known += 1
    words, at = 0, goal
    while at != start:
        words += 1
        at = source[at]
    at = goal
    for word in range(count + words, count, -1):
        cuts[word] = first + at
        at = source[at]
    return count + words


@kernel
def find_clusters(points, newmm, valid):
    """Sets `valid[at]` where a cluster ends at `at`."""
    size = points.size
    valid[: size + 1] = 0
    at = 0
    while at < size:
        state, last, best, end = np.int64(1), at, newmm.fits[0, 0], at + 1
        while last < size and FIRST_THAI <= points[last] <= LAST_THAI:
            state = np.int64(newmm.steps[state, points[last] - FIRST_THAI])
            if state == 0:
                break
            last += 1
            if newmm.fits[state, 0] < best:
                best, end = newmm.fits[state, 0], last
            if newmm.fits[state, 1] < best:
                final = last == size or (last == size - 1 and points[last] == _NEWLINE)
                if final or newmm.kinds[points[last]] & _OPENS:
                    best, end = newmm.fits[state, 1], last
        valid[end] = 1
        at = end


@kernel
def skip_unknown(points, at, newmm, valid):
    """Returns the end of the word at `at`, which does not begin with a word of the list."""
    kinds, size = newmm.kinds, points.size
    if opens_other(points, at, kinds):
        return other_end(points, at, kinds)
    for begin in range(at + 1, size):
        if valid[begin]:
            if opens_other(points, begin, kinds):
                return begin
            key, last, long = np.uint64(0), begin, False
            while last < size:
                key = longer(key, points[last])
                slot = find_prefix(newmm.keys, key)
                if slot < 0:
                    break
                long |= last - begin > 1 or not FIRST_CONSONANT <= points[last] <= LAST_CONSONANT
                last += 1
                if newmm.frequencies[slot] and valid[last] and long:
                    return begin
    return size


@kernel
def opens_other(points, at, kinds):
    """Whether a word of another script, a number or white space begins."""
    kind = kinds[points[at]]
    if points[at] == _RETURN:
        return at + 1 < points.size and points[at + 1] == _NEWLINE
    return kind & _THAI == 0 or kind & _DIGIT != 0


@kernel
def other_end(points, at, kinds):
    """Returns the end of a word of another script, of a number, or of white space."""
    size, kind = points.size, kinds[points[at]]
    if points[at] == _NEWLINE:
        return at + 1
    if points[at] == _RETURN:
        return at + 2
    for same in (_LATIN, _DIGIT, _BLANK):
        if kind & same:
            while at < size and kinds[points[at]] & same:
                at += 1
                if same == _DIGIT and at + 1 < size and points[at] in (_COMMA, _DOT) and kinds[points[at + 1]] & _DIGIT:
                    at += 1
            return at
    while at < size and not kinds[points[at]] & (_THAI | _BLANK) and points[at] != _RETURN and points[at] != _NEWLINE:
        at += 1
    return at


@kernel
def rejoin_numbers(points, size, kinds, cuts, count):
    """Joins the words in which parts of a number stand, `(\\d+[.,:])+\\d+`, in place; returns the new number of words."""
    words, word, at = 0, 0, 0
    while at < size and word < count:
        begin = at
        while at < size and kinds[points[at]] & _DIGIT:
            at += 1
            if at + 1 < size and points[at] in (_DOT, _COMMA, _COLON) and kinds[points[at + 1]] & _DIGIT and at > begin:
                at += 1
        if at == begin:
            at += 1
            continue
        separators = 0
        for place in range(begin, at):
            separators += kinds[points[place]] & _DIGIT == 0
        if not separators:
            continue
        while word < count and cuts[word] < begin:
            cuts[words] = cuts[word]
            words += 1
            word += 1
        first = word
        while word < count and cuts[word] < at:
            word += 1
        if word > first:
            cuts[words] = cuts[first]
            words += 1
    while word < count:
        cuts[words] = cuts[word]
        words += 1
        word += 1
    cuts[words] = cuts[count]
    return words
