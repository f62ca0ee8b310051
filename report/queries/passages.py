"""Compares two documents word by word, for reading: the changes with a few equal words around them, and how many words are left out
between."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from corpusmill.pipeline.safe import safe_line, safe_text

#: Scripts without spaces between words (Han, kana): each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
#: Words of a text that are compared at most.
WORDS = 150_000
#: Parts of up to this many words are compared by difflib; other parts are split at most this many times.
SHORT, DEPTH = 50, 40


@dataclass(frozen=True)
class WordChange:
    """Words `a[a0:a1]` of one text take the place of `b[b0:b1]` of the other. `equal`: they are the same words."""

    equal: bool
    a0: int
    a1: int
    b0: int
    b1: int


class Words:
    """The words of a text: runs between white space, and each character of scripts without spaces."""

    def __init__(self, text: str, limit: int = WORDS):
        self.text = text
        self.spans: list[tuple[int, int]] = []
        self.cut = False  # whether the text has more words than `limit`
        for match in _WORD.finditer(text):
            if len(self.spans) == limit:
                self.cut = True
                break
            self.spans.append(match.span())

    def __len__(self) -> int:
        return len(self.spans)

    def list(self) -> list[str]:
        return [self.text[begin:end] for begin, end in self.spans]

    def slice(self, begin: int, end: int) -> str:
        """Returns the text from the first character of word `begin` to the last of word `end - 1`."""
        return self.text[self.spans[begin][0] : self.spans[end - 1][1]] if begin < end else ""


def diff(a: Words, b: Words) -> list[WordChange]:
    """Returns the changes from `a` to `b` in order. Each word of both is in exactly one; equal and unequal changes alternate."""
    one, two = a.list(), b.list()
    return tidy(_changes(len(one), len(two), runs(one, two)))


def runs(a: Sequence[str], b: Sequence[str], depth: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yields the equal runs as `(place in a, place in b, length)`, in order. Runs that touch in both texts come one after the other.

    First, equal beginnings and ends are cut off. The rest is split again and again at words that occur once in each text (a patience diff);
    short parts go to difflib. This takes about as long as reading the texts, and finds nearly all equal words.
    """
    head = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    rest = min(len(a), len(b)) - head
    tail = next((n for n in range(rest) if a[-1 - n] != b[-1 - n]), rest)
    if head:
        yield 0, 0, head
    one, two = a[head : len(a) - tail], b[head : len(b) - tail]
    if max(len(one), len(two)) <= SHORT:
        blocks = SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks()
        yield from ((head + block.a, head + block.b, block.size) for block in blocks if block.size)
    elif depth < DEPTH and one and two:
        at = to = 0
        for x, y in [*anchors(one, two), (len(one), len(two))]:
            if at < x and to < y and (at, to, x, y) != (0, 0, len(one), len(two)):
                yield from ((head + at + p, head + to + q, n) for p, q, n in runs(one[at:x], two[to:y], depth + 1))
            if x < len(one):
                yield head + x, head + y, 1
            at, to = x + 1, y + 1
    if tail:
        yield len(a) - tail, len(b) - tail, tail


def anchors(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Returns the places of words that occur once in `a` and once in `b`: the longest series that ascends in both."""
    first, second = Counter(a), Counter(b)
    place = {word: y for y, word in enumerate(b) if second[word] == 1}
    pairs = [(x, place[word]) for x, word in enumerate(a) if first[word] == 1 and word in place]
    tails: list[int] = []  # for each length, the lowest place in `b` at which a series ends
    last: list[int] = []  # for each length, the pair at which that series ends
    previous = [-1] * len(pairs)
    for number, (_, y) in enumerate(pairs):
        length = bisect_left(tails, y)
        previous[number] = last[length - 1] if length else -1
        tails[length : length + 1] = [y]
        last[length : length + 1] = [number]
    series, number = [], last[-1] if last else -1
    while number >= 0:
        series.append(pairs[number])
        number = previous[number]
    return series[::-1]


def _changes(n: int, m: int, found: Iterator[tuple[int, int, int]]) -> list[WordChange]:
    changes: list[WordChange] = []
    at, to = 0, 0
    for x, y, length in found:
        if (x, y) != (at, to):
            changes.append(WordChange(False, at, x, to, y))
        elif changes:
            x, y, length = changes[-1].a0, changes[-1].b0, length + x - changes[-1].a0
            changes.pop()
        changes.append(WordChange(True, x, x + length, y, y + length))
        at, to = x + length, y + length
    return [*changes, WordChange(False, at, n, to, m)] if (at, to) != (n, m) else changes


def tidy(changes: list[WordChange]) -> list[WordChange]:
    """Joins changes that only a few equal words separate: short equal runs ("of the") are chance."""
    result: list[WordChange] = []
    for place, change in enumerate(changes):
        size = 4 * (change.a1 - change.a0)
        lonely = change.equal and 0 < place < len(changes) - 1 and size <= min(_size(result[-1]), _size(changes[place + 1]))
        if result and (lonely or not change.equal) and not result[-1].equal:
            result[-1] = WordChange(False, result[-1].a0, change.a1, result[-1].b0, change.b1)
        else:
            result.append(change)
    return result


def _size(change: WordChange) -> int:
    return max(change.a1 - change.a0, change.b1 - change.b0)


Kind = Literal["equal", "removed", "added", "left out"]

#: Equal words shown on each side of a change, words shown of a change, changes shown, characters of a passage.
AROUND, LONG, CHANGES, CHARACTERS = 10, 60, 10, 1200
#: Characters of a text that are compared at most.
COMPARED = 2_000_000


@dataclass(frozen=True)
class Passage:
    """Words of both documents (`equal`), of the removed or the kept document alone, or a remark about words left out.

    `words` counts all words that the passage stands for. The text is one line without control characters.
    """

    kind: Kind
    text: str
    words: int = 0


@dataclass(frozen=True)
class Comparison:
    """A word diff: the passages in order, the equal words, and the words that only the removed or only the kept document has."""

    passages: list[Passage]
    equal: int
    removed: int
    added: int
    cut: bool  # whether a document is too long, so that only its beginning was compared

    @property
    def same(self) -> bool:
        return not self.removed and not self.added


def compare(removed: str, kept: str) -> Comparison:
    """Compares a removed document with the kept one, word by word."""
    a, b = Words(safe_text(removed[:COMPARED])), Words(safe_text(kept[:COMPARED]))
    changes = diff(a, b)
    equal = sum(c.a1 - c.a0 for c in changes if c.equal)
    cut = a.cut or b.cut or max(len(removed), len(kept)) > COMPARED
    return Comparison(_passages(changes, a, b), equal, len(a) - equal, len(b) - equal, cut)


def _passages(changes: list[WordChange], a: Words, b: Words) -> list[Passage]:
    found: list[Passage] = []
    shown = 0
    for place, change in enumerate(changes):
        if change.equal:
            found += _equal(change, a, place == 0, place == len(changes) - 1)
            continue
        if shown == CHANGES:
            rest = sum(not c.equal for c in changes[place:])
            return [*found, Passage("left out", f"and {rest:,} more changes" if rest > 1 else "and one more change")]
        shown += 1
        found += [*_changed("removed", a, change.a0, change.a1), *_changed("added", b, change.b0, change.b1)]
    return found


def _equal(change: WordChange, a: Words, first: bool, last: bool) -> list[Passage]:
    """Returns the equal words next to the changes; where nothing changed, the first and last words of the text."""
    before = 0 if first and not last else AROUND
    after = 0 if last and not first else AROUND
    return _shortened("equal", a, change.a0, change.a1, before, after)


def _changed(kind: Kind, words: Words, begin: int, end: int) -> list[Passage]:
    return _shortened(kind, words, begin, end, LONG * 2 // 3, LONG // 3)


def _shortened(kind: Kind, words: Words, begin: int, end: int, before: int, after: int) -> list[Passage]:
    """Returns the first and last words of a range, and a remark on the number between; all words where only a few would be left out."""
    if begin == end:
        return []
    left = end - begin - before - after
    if left <= 5:
        return [_passage(kind, words, begin, end)]
    remark = Passage("left out", f"{left:,} {kind} words", left)
    ends = [_passage(kind, words, *range_) for range_ in ((begin, begin + before), (end - after, end)) if range_[0] < range_[1]]
    return [ends[0], remark, *ends[1:]] if before else [remark, *ends]


def _passage(kind: Kind, words: Words, begin: int, end: int) -> Passage:
    return Passage(kind, safe_line(words.slice(begin, end), CHARACTERS), end - begin)
