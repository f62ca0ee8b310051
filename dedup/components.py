"""What is connected by candidates, of more documents than memory has room for.

Documents are in ranges, and one range is in memory at a time. From the last to the first: within a range links are joined by union-find;
a component that reaches into earlier ranges is replaced by links between the documents that it reaches there, for all that matters of it is
that it connects them (as the sweep of Dementiev et al., Engineering an External Memory Minimum Spanning Tree Algorithm, 2004, does with
single vertices). From the first to the last: each component learns the root of the lowest document that it reaches.
"""

from collections.abc import Iterable

import numpy as np

from corpusmill.dedup.spill import Index, Spill
from corpusmill.dedup.union_find import join_links, roots, stars_to_links

#: Files of stars, `(star, document)`, which can be read again: where `star`, which ascends, has one number, the documents belong together.
#: They are linked in a chain, not all pairs.
Stars = Iterable[tuple[Index, Index]]

#: What is left in the end: a record for each document of a star, ascending within a range, with the lowest document of its component.
MEMBERS = "members"
#: The columns of such a record; NEAR: whether it is in a star of candidates; WEIGHT: `packing.py` adds it.
DOCUMENT, NEAR, ROOT, WEIGHT = range(4)
#: Links (the later document first): of stars, and those that replace components of later ranges.
COPIES, CANDIDATES, CARRIED = "copies", "candidates", "carried"
#: As MEMBERS, but with the lowest document that the component has in the member's own range.
LOCAL = "local"
#: A document and who asks for its root (the lowest of a component in a later range); who asked, and the root.
ASKED, ANSWERED = "asked", "answered"


def connect(spill: Spill, copies: Stars, candidates: Stars) -> None:
    """Puts MEMBERS: both kinds of stars join documents."""
    for name, files in ((COPIES, copies), (CANDIDATES, candidates)):
        for star, document in files:
            links = stars_to_links(star, document)
            spill.put(name, spill.range_of(links[:, 0]), links)
    for number in reversed(range(spill.ranges)):
        _contract(spill, number)
    spill.drop(COPIES, CANDIDATES, CARRIED)
    for number in range(spill.ranges):
        _resolve(spill, number)
    spill.drop(LOCAL, ASKED, ANSWERED)


def _contract(spill: Spill, number: int) -> None:
    """Joins what a range links; later ranges have been contracted."""
    begin, end = spill.bounds[number : number + 2]
    parent, low = np.arange(end - begin), np.full(end - begin, -1)
    member, near = np.zeros(end - begin, bool), np.zeros(end - begin, bool)
    for name in (COPIES, CANDIDATES, CARRIED):
        for links in spill.take(name, number, 2):
            member[links[:, 0] - begin] = True
            if name == CANDIDATES:
                near[links[:, 0] - begin] = True
            beyond = np.empty_like(links)
            more = _distinct(beyond[: join_links(parent, low, begin, links, beyond)])
            spill.put(CARRIED, spill.range_of(more[:, 0]), more)
    root, documents = roots(parent), np.flatnonzero(member)
    for at in range(0, len(documents), spill.chunk):
        some = documents[at : at + spill.chunk]
        spill.put(LOCAL, number, np.stack([some + begin, near[some], root[some] + begin], axis=1))
        asking = some[(root[some] == some) & (low[some] >= 0)]
        spill.put(ASKED, spill.range_of(low[asking]), np.stack([low[asking], asking + begin], axis=1))


def _distinct(links: Index) -> Index:
    links = links[np.lexsort((links[:, 1], links[:, 0]))]
    return links[np.append(True, (links[1:] != links[:-1]).any(axis=1))] if len(links) else links


def _resolve(spill: Spill, number: int) -> None:
    """Puts the members of a range and answers what later ranges ask; those before it have answered."""
    begin, end = spill.bounds[number : number + 2]
    root = np.arange(begin, end)
    for answers in spill.take(ANSWERED, number, 2):
        root[answers[:, 0] - begin] = answers[:, 1]
    for members in spill.take(LOCAL, number, 3):  # lowest documents have their root by now, and it stays
        members[:, ROOT] = root[members[:, ROOT] - begin]
        root[members[:, DOCUMENT] - begin] = members[:, ROOT]
        spill.put(MEMBERS, number, members)
    for asked in spill.take(ASKED, number, 2):
        spill.put(ANSWERED, spill.range_of(asked[:, 1]), np.stack([asked[:, 1], root[asked[:, 0] - begin]], axis=1))
