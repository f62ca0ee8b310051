"""A word diff of two documents for reading: changes with a few equal words around them, and how much is left out between."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from corpusmill.pipeline.safe import safe_line, safe_text

#: Han, kana and what else is written without spaces between words: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
#: Words of a text that are compared.
WORDS = 150_000
#: Changed words up to which the fewest changes are found: in the whole texts, and between two words that split them.
WHOLE, PART = 1500, 300
#: Steps of Myers' algorithm for all parts together.
STEPS = 2_000_000
#: How often a part may be split again.
DEPTH = 40

Range: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class Change:
    """Words `a[a0:a1]` of the one text stand where `b[b0:b1]` of the other do; `equal` says whether they are the same words."""

    equal: bool
    a0: int
    a1: int
    b0: int
    b1: int


class Words:
    """A text as words: what stands between white space, and each character of scripts that put none between words."""

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
        """The text from the first character of word `begin` to the last of word `end - 1`."""
        return self.text[self.spans[begin][0] : self.spans[end - 1][1]] if begin < end else ""


def diff(a: Words, b: Words) -> list[Change]:
    """The changes from `a` to `b` in order: each word of both is in exactly one, and equal and unequal ones alternate."""
    names: dict[str, int] = {}
    one = [names.setdefault(word, len(names)) for word in a.list()]
    two = [names.setdefault(word, len(names)) for word in b.list()]
    return tidy(_changes(len(one), len(two), runs(one, two)))


def runs(a: Sequence[int], b: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """`(place in a, place in b, length)` of the runs that are equal, in order; two that touch in both come one after the other."""
    return _Runs(a, b).between((0, len(a), 0, len(b)), 0)


class _Runs:
    def __init__(self, a: Sequence[int], b: Sequence[int]):
        self.a, self.b = a, b
        self.steps = STEPS

    def between(self, range_: Range, depth: int) -> Iterator[tuple[int, int, int]]:
        """The equal runs of a range: its ends are cut off where they are equal, and what is between them is compared."""
        a, b = self.a, self.b
        a0, a1, b0, b1 = range_
        head = 0
        while a0 + head < a1 and b0 + head < b1 and a[a0 + head] == b[b0 + head]:
            head += 1
        tail = 0
        while a0 + head < a1 - tail and b0 + head < b1 - tail and a[a1 - tail - 1] == b[b1 - tail - 1]:
            tail += 1
        if head:
            yield a0, b0, head
        inner = (a0 + head, a1 - tail, b0 + head, b1 - tail)
        if inner[0] < inner[1] and inner[2] < inner[3]:
            yield from self._inner(inner, depth)
        if tail:
            yield a1 - tail, b1 - tail, tail

    def _inner(self, range_: Range, depth: int) -> Iterator[tuple[int, int, int]]:
        a0, a1, b0, b1 = range_
        limit = PART if depth else WHOLE
        one, two = self.a[a0:a1], self.b[b0:b1]
        first, second = Counter(one), Counter(two)
        found = None
        if self.steps > 0 and (first - second).total() + (second - first).total() <= limit:
            found, steps = fewest(one, two, limit)
            self.steps -= steps
        if found is not None:
            for x, y, length in found:
                yield a0 + x, b0 + y, length
            return
        if depth == DEPTH:
            return
        at, to = a0, b0
        for x, y in anchors(one, two, first, second):
            if a0 + x >= at and b0 + y >= to:  # else the run before it goes over it
                yield from self.between((at, a0 + x, to, b0 + y), depth + 1)
                length = 0
                while a0 + x + length < a1 and b0 + y + length < b1 and one[x + length] == two[y + length]:
                    length += 1
                yield a0 + x, b0 + y, length
                at, to = a0 + x + length, b0 + y + length
        if (at, to) != (a0, b0) and at < a1 and to < b1:
            yield from self.between((at, a1, to, b1), depth + 1)


def fewest(a: Sequence[int], b: Sequence[int], limit: int) -> tuple[list[tuple[int, int, int]] | None, int]:
    """The equal runs that leave the fewest words over, None where these are more than `limit`; and the steps that it took."""
    n, m = len(a), len(b)
    rows: list[list[int]] = []  # of each number of changes: how far in `a` each diagonal reaches
    for d in range(min(limit, n + m) + 1):
        before, row = rows[-1] if rows else [], []
        for i in range(d + 1):
            if d == 0:
                x = 0
            elif i == 0 or (i != d and before[i - 1] < before[i]):
                x = before[i]
            else:
                x = before[i - 1] + 1
            y = x - (2 * i - d)
            while x < n and y < m and a[x] == b[y]:
                x += 1
                y += 1
            row.append(x)
            if x >= n and y >= m:
                rows.append(row)
                return _walk_back(rows, n, m), d * d // 2
        rows.append(row)
    return None, limit * limit // 2


def _walk_back(rows: list[list[int]], n: int, m: int) -> list[tuple[int, int, int]]:
    found, x, y = [], n, m
    for d in range(len(rows) - 1, -1, -1):
        if d == 0:
            start = 0
        else:
            i, before = (x - y + d) // 2, rows[d - 1]
            down = i == 0 or (i != d and before[i - 1] < before[i])
            last = before[i] if down else before[i - 1]
            start = last if down else last + 1
        if x > start:
            found.append((start, y - (x - start), x - start))
        if d:
            x, y = last, last - (2 * (i if down else i - 1) - (d - 1))
    return found[::-1]


def anchors(a: Sequence[int], b: Sequence[int], first: Counter[int], second: Counter[int]) -> list[tuple[int, int]]:
    """Places of words that stand once in `a` and once in `b`: the longest series that ascends in both."""
    place = {word: y for y, word in enumerate(b) if second[word] == 1}
    pairs = [(x, place[word]) for x, word in enumerate(a) if first[word] == 1 and word in place]
    tails: list[int] = []  # of the series of each length the lowest last place in `b`
    last: list[int] = []  # and the pair that it belongs to
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


def _changes(n: int, m: int, found: Iterator[tuple[int, int, int]]) -> list[Change]:
    changes: list[Change] = []
    at, to = 0, 0
    for x, y, length in found:
        if (x, y) != (at, to):
            changes.append(Change(False, at, x, to, y))
        elif changes:
            x, y, length = changes[-1].a0, changes[-1].b0, length + x - changes[-1].a0
            changes.pop()
        changes.append(Change(True, x, x + length, y, y + length))
        at, to = x + length, y + length
    return [*changes, Change(False, at, n, to, m)] if (at, to) != (n, m) else changes


def tidy(changes: list[Change]) -> list[Change]:
    """Equal words that are few beside the changes on both sides are chance ("of the"): they join them to one change."""
    result: list[Change] = []
    for place, change in enumerate(changes):
        size = 4 * (change.a1 - change.a0)
        lonely = change.equal and 0 < place < len(changes) - 1 and size <= min(_size(result[-1]), _size(changes[place + 1]))
        if result and (lonely or not change.equal) and not result[-1].equal:
            result[-1] = Change(False, result[-1].a0, change.a1, result[-1].b0, change.b1)
        else:
            result.append(change)
    return result


def _size(change: Change) -> int:
    return max(change.a1 - change.a0, change.b1 - change.b0)


Kind = Literal["equal", "removed", "added", "left out"]

#: Equal words shown on either side of a change, words of a change, changes, characters of a passage.
AROUND, LONG, CHANGES, CHARACTERS = 10, 60, 10, 1200
#: Characters of a text that are compared.
COMPARED = 2_000_000


@dataclass(frozen=True)
class Passage:
    """Words of both documents (`equal`), of the removed or of the kept one alone, or a remark on what is not shown.

    `words` counts what it stands for, whole. The text is one line of harmless characters.
    """

    kind: Kind
    text: str
    words: int = 0


@dataclass(frozen=True)
class Comparison:
    """The passages in order, and how many words of the removed document are not in the kept one and the other way round."""

    passages: list[Passage]
    equal: int
    removed: int
    added: int
    cut: bool  # whether the documents are too long and only their beginnings were compared

    @property
    def same(self) -> bool:
        return not self.removed and not self.added


def compare(removed: str, kept: str) -> Comparison:
    """What a removed document had that the kept one has not, and what the kept one has in its place."""
    a, b = Words(safe_text(removed[:COMPARED])), Words(safe_text(kept[:COMPARED]))
    changes = diff(a, b)
    equal = sum(c.a1 - c.a0 for c in changes if c.equal)
    cut = a.cut or b.cut or max(len(removed), len(kept)) > COMPARED
    return Comparison(_passages(changes, a, b), equal, len(a) - equal, len(b) - equal, cut)


def _passages(changes: list[Change], a: Words, b: Words) -> list[Passage]:
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


def _equal(change: Change, a: Words, first: bool, last: bool) -> list[Passage]:
    """The words next to the changes before and after it; the first and last of a text where nothing changes."""
    before = 0 if first and not last else AROUND
    after = 0 if last and not first else AROUND
    return _shortened("equal", a, change.a0, change.a1, before, after)


def _changed(kind: Kind, words: Words, begin: int, end: int) -> list[Passage]:
    return _shortened(kind, words, begin, end, LONG * 2 // 3, LONG // 3)


def _shortened(kind: Kind, words: Words, begin: int, end: int, before: int, after: int) -> list[Passage]:
    """The first and the last words of a range, with the number of those between; all of them where these are few."""
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
