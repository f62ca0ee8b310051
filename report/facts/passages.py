"""A word diff of two documents for reading: changes with a few equal words around them, and how much is left out between."""

from dataclasses import dataclass
from typing import Literal

from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.report.facts.worddiff import Change, Words, diff

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
