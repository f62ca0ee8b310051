"""Components are packed into groups, each of which one task judges. As `components.py` does, it has one range of documents in memory."""

from collections.abc import Callable

import numpy as np

from corpusmill.dedup import heavy
from corpusmill.dedup.components import DOCUMENT, MEMBERS, NEAR, ROOT, WEIGHT, Stars, connect
from corpusmill.dedup.spill import Index, Spill

#: 64-bit words (signatures, shingles, columns) that one task has in memory at once.
GROUP_WORDS = 16_000_000
#: What a document weighs beside its signature and its shingles: id, source, times, counts.
DOCUMENT_WORDS = 32

#: Records of MEMBERS with a fourth column, what they weigh; of these, with components that were too heavy made again; and those that are
#: judged, with their group in place of the root.
WEIGHED, PARTED, JUDGED = "weighed", "parted", "judged"
GROUP = ROOT
#: What a component weighs in a range (root, words, range), and what the range is told of it (root, group).
TOTALS, NUMBERED = "totals", "numbered"


def group(spill: Spill, copies: Stars, candidates: Stars, near_words: Callable[[int], Index], own: int) -> tuple[int, int]:
    """Puts JUDGED: each document of a star with the group in which it is judged. Returns how many groups there are, and how many candidates
    were left apart, because what is connected is more than a group may be.

    `near_words`: what each document of a range weighs more where it is in a star of candidates. Components with none of the first `own`
    documents are left out.
    """
    connect(spill, copies, candidates)
    heaviest = max((_weigh(spill, number, near_words(number)) for number in range(spill.ranges)), default=0)
    spill.drop(MEMBERS)
    limit = max(GROUP_WORDS, 2 * heaviest)  # the longest document can be compared with another one
    _add_up(spill, WEIGHED)
    members, apart, too_heavy = WEIGHED, 0, _heavier(spill, limit)
    if len(too_heavy):
        members, apart = PARTED, heavy.part(spill, WEIGHED, PARTED, too_heavy, copies, candidates, limit)
        spill.drop(WEIGHED, TOTALS)
        _add_up(spill, PARTED)
    packer = Packer()
    for number in range(spill.ranges):
        _judge(spill, members, number, own, packer)
    spill.drop(members, TOTALS, NUMBERED)
    return packer.groups, apart


def _weigh(spill: Spill, number: int, near_words: Index) -> int:
    """Puts the members of a range with what each weighs; returns what the heaviest does."""
    begin, heaviest = spill.bounds[number], 0
    for members in spill.take(MEMBERS, number, 3):
        weight = DOCUMENT_WORDS + members[:, NEAR] * near_words[members[:, DOCUMENT] - begin]
        spill.put(WEIGHED, number, np.column_stack([members, weight]))
        heaviest = max(heaviest, int(weight.max()))
    return heaviest


def _add_up(spill: Spill, name: str) -> None:
    """Puts what the components of each range's members weigh in it."""
    for number in range(spill.ranges):
        for members in spill.take(name, number, 4):
            root, component = np.unique(members[:, ROOT], return_inverse=True)
            words = np.bincount(component, members[:, WEIGHT]).astype(np.int64)
            spill.put(TOTALS, spill.range_of(root), np.column_stack([root, words, np.full(len(root), number)]))


def _heavier(spill: Spill, limit: int) -> Index:
    """The roots (ascending) of the components that weigh more than `limit` in all ranges together."""
    found = [np.flatnonzero(_totals(spill, number) > limit) + spill.bounds[number] for number in range(spill.ranges)]
    return np.concatenate([np.zeros(0, np.int64), *found])


def _totals(spill: Spill, number: int) -> Index:
    """What the component of each root in a range weighs; 0 where a document is none."""
    begin, end = spill.bounds[number : number + 2]
    total = np.zeros(end - begin, np.int64)
    for told in spill.take(TOTALS, number, 3):
        np.add.at(total, told[:, 0] - begin, told[:, 1])
    return total


class Packer:
    """Numbers groups for components that come in the order of their roots: each is filled up to about GROUP_WORDS."""

    def __init__(self) -> None:
        self.groups = 0
        self._words, self._last = 0, -1

    def pack(self, words: Index) -> Index:
        """The group of each of n more components."""
        before = self._words + np.cumsum(words)
        full = before // GROUP_WORDS
        group = self.groups - 1 + np.cumsum(np.diff(full, prepend=self._last) > 0)
        if len(words):
            self.groups, self._words, self._last = int(group[-1]) + 1, int(before[-1]), int(full[-1])
        return group


def _judge(spill: Spill, name: str, number: int, own: int, packer: Packer) -> None:
    """Puts those members of a range that are judged, with their group; ranges before it are done, and have told it their roots' groups."""
    begin, end = spill.bounds[number : number + 2]
    total = _totals(spill, number)
    judged = np.flatnonzero(total)
    judged = judged[judged + begin < own]
    group = np.full(end - begin, -1)
    group[judged] = packer.pack(total[judged])
    del total
    for told in spill.take(TOTALS, number, 3):
        later = told[told[:, 2] > number]
        spill.put(NUMBERED, later[:, 2], np.column_stack([later[:, 0], group[later[:, 0] - begin]]))
    roots, groups = _sorted(spill.all_of(NUMBERED, number, 2))
    for members in spill.take(name, number, 4):
        here = members[:, ROOT] >= begin
        members[here, GROUP] = group[members[here, ROOT] - begin]
        members[~here, GROUP] = groups[np.searchsorted(roots, members[~here, ROOT])]
        members = members[members[:, GROUP] >= 0]
        spill.put(JUDGED, number, members)


def _sorted(pairs: Index) -> tuple[Index, Index]:
    """Both columns, by the first."""
    order = np.argsort(pairs[:, 0])
    return pairs[order, 0], pairs[order, 1]
