"""Components that are more than one task may judge together."""

from collections.abc import Iterator

import numpy as np

from corpusmill.dedup.components import DOCUMENT, ROOT, WEIGHT, Stars
from corpusmill.dedup.spill import Index, Spill
from corpusmill.dedup.union_find import join_links, join_up_to, roots, stars_to_links


def part(spill: Spill, members: str, parted: str, heavy: Index, copies: Stars, candidates: Stars, limit: int) -> int:
    """Makes the components with the roots `heavy` (ascending) again, and returns how many candidates were left apart.

    `copies` always stay together. `candidates` join documents from the smallest stars to the largest, leaving apart what would exceed
    `limit`: the smaller a star, the more its documents share. Of stars alike in size the first ones win, so what is left apart depends
    on the order of the documents. Puts `parted`: the records `members` (document, near, root, weight), with the new roots. In memory are
    48 bytes for each document of these components, and a file.
    """
    found = [some[np.isin(some[:, ROOT], heavy)] for number in range(spill.ranges) for some in spill.take(members, number, 4)]
    documents, weight = (np.concatenate([some[:, column] for some in found]) for column in (DOCUMENT, WEIGHT))
    del found
    parent, low, beyond = np.arange(len(documents)), np.full(len(documents), -1), np.empty((0, 2), np.int64)  # there is one range
    for star, document in _Within(copies, documents):
        join_links(parent, low, 0, stars_to_links(star, document), beyond)
    del low
    of_root = np.bincount(roots(parent), weight, len(parent)).astype(np.int64)
    apart = _join_smallest_first(parent, of_root, _Within(candidates, documents), limit)
    root = documents[roots(parent)]
    for number in range(spill.ranges):
        for some in spill.take(members, number, 4):
            new = np.isin(some[:, ROOT], heavy)
            some[new, ROOT] = root[np.searchsorted(documents, some[new, DOCUMENT])]
            spill.put(parted, number, some)
    return apart


def _join_smallest_first(parent: Index, weight: Index, stars: Stars, limit: int) -> int:
    apart, smallest = 0, 2
    while True:
        largest_seen = 0
        for star, document in stars:
            apart += join_up_to(parent, weight, star, document, limit, smallest, 2 * smallest - 1)
            largest_seen = max(largest_seen, int(np.unique(star, return_counts=True)[1].max(initial=0)))
        if largest_seen < 2 * smallest:
            return apart
        smallest *= 2


class _Within:
    """The stars of some documents (ascending), which are numbered in their order. A star has all of its documents among them or none."""

    def __init__(self, stars: Stars, documents: Index):
        self.stars, self.documents = stars, documents

    def __iter__(self) -> Iterator[tuple[Index, Index]]:
        for star, document in self.stars:
            at = np.searchsorted(self.documents, document)
            there = at < len(self.documents)
            there[there] = self.documents[at[there]] == document[there]
            yield star[there], at[there]
